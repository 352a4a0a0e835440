"""The final table as text for the terminal, and as a standalone HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from evomerge.choice.front import Front
from evomerge.choice.results import Results
from evomerge.choice.table import final_table
from evomerge.journal.state import RecipeOf
from evomerge.record.columns import (
    Column,
    columns_of,
    front_columns,
    part_columns,
    row_of,
    rows_of,
)
from evomerge.record.path_pictures import path_pictures
from evomerge.record.verdicts import verdict_lines
from evomerge.score.health import SIGNS
from evomerge.score.statistics import Z_95


def front_lines(front: Front) -> list[str]:
    """What a front is good for, in words."""
    lines = []
    if front.win_rate is not None:
        lines.append(
            f"the front has a better model than the best baseline for {front.win_rate:.0%} of all "
            "preferences"
        )
    if not front.members:
        lines.append(f"nobody keeps every limit; {front.knee} comes nearest")
    for name in front.reference:
        values = {entry.values[name] for entry in front.entries}
        if len(values) > 1 and max(values) - min(values) < 1e-9 * max(map(abs, values)):
            values = {max(values)}
        if len(values) == 1:
            lines.append(
                f"{name} is the same for everybody: it decides nothing, and without an explicit "
                "`reference` that is worse the hypervolume is zero"
            )
    return lines


def front_details(front: Front) -> list[str]:
    """Figures of a front and of its surrogates."""
    reference = ", ".join(f"{name} {value:.3f}" for name, value in front.reference.items())
    lines = [
        f"hypervolume {front.hypervolume:.4g} over the reference point {reference} "
        f"(baselines alone: {front.baseline_hypervolume:.4g})"
    ]
    if front.win_rate is not None:
        lines.append(
            f"the baselines are {front.baseline_igd_plus:.3f} behind the front (IGD+), their best "
            f"{front.baseline_gd_plus:.3f} (GD+)"
        )
    if not front.surrogates:
        lines.append("no surrogates could be fitted: values are plain means on validation")
    for name, quality in front.surrogates.items():
        verdict = "trusted" if quality["trusted"] else f"not used: {quality['reason']}"
        lines.append(
            f"surrogate of {name}: cross-validated R2 {quality['r2']:.2f} "
            f"({quality['r2_beyond_noise']:.2f} beyond noise), {quality['link']}, {verdict}"
        )
    return lines


def markdown_table(table: dict[str, Any]) -> str:
    """The verdict and the final table in Markdown, for a README or a Prefect artifact."""
    found, *notes = verdict_lines(table)
    columns = columns_of(table)
    lines = [f"**{found}**", "", *_markdown_head("model", columns)]
    for row in rows_of(table):
        name = row["candidate"]
        cells = [f"**{name}**" if name == table["chosen"] else name]
        cells += [column.show(row) for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    if table["front"] is not None:
        front = Front.from_dict(table["front"])
        columns = front_columns(table)
        lines += ["", *_markdown_head("front, on validation", columns)]
        for entry in front.members:
            cells = [column.show(row_of(entry)) for column in columns]
            lines.append(f"| {entry.candidate} | {' | '.join(cells)} |")
        notes += front_lines(front)
    return "\n".join([*lines, "", *(f"{line}  " for line in notes)])


def _markdown_head(first: str, columns: list[Column]) -> list[str]:
    headings = [f"{column.heading}<br>{column.words}" for column in columns]
    return [f"| {first} | {' | '.join(headings)} |", "| --- |" + " ---: |" * len(columns)]


def render_html(results: Results, recipe_of: RecipeOf) -> str:
    """The report as one HTML page that needs nothing beside it.

    Args:
        results: The run's.
        recipe_of: Gives each candidate's recipe.
    """
    environment = Environment(
        loader=PackageLoader("evomerge.record", "."), autoescape=select_autoescape(default=True)
    )
    table = final_table(results)
    chosen = results.state.candidates[table["chosen"]] if table["chosen"] else None
    return environment.get_template("report.jinja").render(
        table=table,
        lines=verdict_lines(table),
        rows=rows_of(table),
        columns=columns_of(table),
        parts={group: part_columns(table, group) for group in table.get("groups", {})},
        front_columns=front_columns(table),
        row_of=row_of,
        signs=SIGNS,
        plot=_progress(results),
        paths=path_pictures(results, recipe_of),
        front=results.front,
        front_lines=[*front_lines(results.front), *front_details(results.front)]
        if results.front is not None
        else [],
        pool=results.state.started["pool_sha256"],
        dimensions=results.state.dimensions(chosen.phase) if chosen is not None else [],
        genome=chosen.genome if chosen is not None else None,
    )


def write_html(results: Results, recipe_of: RecipeOf, path: Path) -> None:
    """Write the report; arguments as for `render_html`."""
    path.write_text(render_html(results, recipe_of), encoding="utf-8")


def _progress(results: Results) -> dict[str, Any] | None:
    """Search scores by candidate as plot coordinates in 0 to 1; None where nothing is scored.

    Returns:
        "points": name, x, y, whether it is chosen, and of an estimate the ends of its 95 %
        interval; "ticks": (score, y).
    """
    scored = []
    for candidate in results.state.of_origin("asked", "enqueued"):
        estimate = results.combined(candidate.id, "search")
        if estimate is not None:
            half = Z_95 * estimate.design_error
            scored.append((candidate, estimate.value, half))
    if not scored:
        return None
    low = min(value - half for _, value, half in scored)
    high = max(value + half for _, value, half in scored)
    span = (high - low) or 1.0
    chosen = results.state.decided.get("chosen")
    return {
        "points": [
            {
                "name": candidate.id,
                "x": index / max(1, len(scored) - 1),
                "y": (value - low) / span,
                "is_chosen": candidate.id == chosen,
                "ends": ((value - half - low) / span, (value + half - low) / span)
                if candidate.is_estimated
                else None,
            }
            for index, (candidate, value, half) in enumerate(scored)
        ],
        "ticks": [(low + span * y, y) for y in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "has_estimates": any(candidate.is_estimated for candidate, *_ in scored),
    }
