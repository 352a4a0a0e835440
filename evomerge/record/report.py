"""The final table as text for the terminal, and as a standalone HTML page."""

from __future__ import annotations

import importlib.util
import logging
import math
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from evomerge.choice.answers import Answered
from evomerge.choice.front import Front
from evomerge.choice.results import Results
from evomerge.choice.table import final_table
from evomerge.journal.folder import CONFIG_FILE
from evomerge.journal.state import RecipeOf
from evomerge.record.columns import (
    Column,
    columns_of,
    front_columns,
    part_columns,
    row_of,
    rows_of,
    scale_of,
)
from evomerge.record.commands import promote_command, ui_command
from evomerge.record.path_pictures import path_pictures
from evomerge.record.report_data import page_data, to_script
from evomerge.record.spent import spent
from evomerge.record.verdicts import shrunk, verdict_lines
from evomerge.score.health import SIGNS

logger = logging.getLogger(__name__)


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


MOST_COLUMNS = 4
"""Of numbers, beside each other: a page of Prefect cuts off what is wider."""


def markdown_table(table: dict[str, Any]) -> str:
    """The verdict and the final table in Markdown, for a README or a Prefect artifact."""
    found, *notes = verdict_lines(table)
    lines = [f"**{found}**", ""]
    lines += _markdown_rows("model", columns_of(table), rows_of(table), table["chosen"])
    if table["front"] is not None:
        front = Front.from_dict(table["front"])
        rows = [row_of(entry) for entry in front.members]
        lines += _markdown_rows("front, on validation", front_columns(table), rows, None)
        notes += front_lines(front)
    return "\n".join([*lines, *(f"{line}  " for line in notes)])


def _markdown_rows(
    first: str, columns: list[Column], rows: Sequence[dict[str, Any]], chosen: str | None
) -> list[str]:
    """Rows in as many tables, one below the other, as a narrow page needs."""
    lines = []
    num_parts = math.ceil(len(columns) / MOST_COLUMNS)
    size = math.ceil(len(columns) / max(num_parts, 1))
    for number in range(num_parts):
        part = columns[number * size : (number + 1) * size]
        headings = [f"{column.heading}<br>{column.words}" for column in part]
        lines.append(f"| {first} | {' | '.join(headings)} |")
        lines.append("| --- |" + " ---: |" * len(part))
        for row in rows:
            name = row["candidate"]
            cells = [f"**{name}**" if name == chosen else name]
            cells += [column.show(row) for column in part]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def render_html(results: Results, recipe_of: RecipeOf, answered: Sequence[Answered] = ()) -> str:
    """The report as one HTML page that needs nothing beside it.

    Args:
        results: The run's.
        recipe_of: Gives each candidate's recipe.
        answered: Documents with answers, which are shown.
    """
    environment = Environment(
        loader=PackageLoader("evomerge.record", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
    )
    table, started = final_table(results), results.state.started
    data = page_data(results, table, recipe_of)
    front = results.front
    found, *lines = verdict_lines(table)
    return environment.get_template("report.jinja").render(
        table=table,
        verdict=found,
        lines=lines,
        data=data,
        script=to_script(data),
        style=_part("report.css"),
        code=_part("report.js"),
        plotly=_plotly(),
        rows=rows_of(table),
        columns=columns_of(table),
        parts={group: part_columns(table, group) for group in table.get("groups", {})},
        front=front,
        front_columns=front_columns(table),
        front_lines=front_lines(front) if front is not None else [],
        front_details=front_details(front) if front is not None else [],
        row_of=row_of,
        has_progress=any("t" in entry and "c" in entry for entry in data["candidates"]),
        signs=SIGNS,
        combined=scale_of(table, None),
        shrunk=shrunk,
        spent=spent(results, table),
        answered=answered,
        paths=path_pictures(results, recipe_of),
        num_all=len(results.state.candidates),
        pool=started["pool_sha256"],
        versions=started["versions"],
        config=_config(results.run_dir),
        commands=_commands(results, table),
    )


def write_html(
    results: Results, recipe_of: RecipeOf, path: Path, answered: Sequence[Answered] = ()
) -> None:
    """Write the report; arguments as for `render_html`."""
    path.write_text(render_html(results, recipe_of, answered), encoding="utf-8")


def _part(name: str) -> str:
    return resources.files("evomerge.record").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str | None:
    """The plotting library's script; None where it is not installed."""
    if importlib.util.find_spec("plotly") is None:
        logger.warning("the report has no pictures: plotly is not installed")
        return None
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _config(run_dir: Path) -> str:
    """The run's configuration, as far as it is there."""
    path = run_dir / CONFIG_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _commands(results: Results, table: dict[str, Any]) -> list[tuple[str, str]]:
    """What can be done next, with what it does."""
    folder = shlex.quote(str(results.run_dir))
    chosen = table["chosen"]
    found = [(ui_command(results.run_dir), "opens the run in MLflow")]
    if chosen is not None:
        found.insert(0, (promote_command(results.run_dir, chosen), f"has {chosen} built"))
        rival = results.state.decided.get("best_parent")
        if rival is not None and rival != chosen:
            line = f"evomerge compare {folder} {rival} {chosen}"
            found.append((line, "compares them by document"))
    if results.finds_front:
        found.append((f"evomerge front {folder}", "prints the front, and picks by preference"))
    more = "--set search.budget.candidates=" + str(2 * max(1, table["num_candidates"]))
    return [*found, (f"evomerge resume {folder} {more}", "goes on searching")]
