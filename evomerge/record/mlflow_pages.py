"""What MLflow's pages say of an experiment, a search and a candidate, in Markdown."""

from __future__ import annotations

import json
from typing import Any

from evomerge.choice.results import Results
from evomerge.journal import Candidate
from evomerge.record import keys
from evomerge.record.columns import columns_of, front_columns, row_of, scale_in, scale_of
from evomerge.record.commands import promote_command
from evomerge.record.numbers import metric_name
from evomerge.record.place import TRAINING
from evomerge.record.verdicts import verdict_lines
from evomerge.score import SPLITS

NOTE = "mlflow.note.content"
"""MLflow's own tag of a description."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The experiment is about models that are made, so that it opens with its runs."""

VIEW = "evomerge"
"""Key of the saved view."""

MOST_LETTERS = 7500
"""Of a description; MLflow's databases hold 8,000."""

MOST_ROWS = 25


def experiment_tags(results: Results, experiment: str) -> dict[str, str]:
    """Kind, description and saved view of an experiment.

    Args:
        results: Of one of its runs.
        experiment: Its id.
    """
    link = f"#/experiments/{experiment}/runs?{TRAINING}&viewStateShareKey={VIEW}"
    note = (
        f"Searches by evomerge for merges of models.\n\n**[Candidates, best first]({link})**, with "
        "their scores, ranks and tags.\n\nA run without a parent is a search; its description says "
        "what was found. Below it is a run for each candidate. To have one built, set its tag "
        f"`{keys.PICK}` to `yes`: the scheduled deployment `promote` does the rest."
    )
    return {**KIND, NOTE: note, f"mlflow.sharedViewState.{VIEW}": json.dumps(_view(results))}


def _view(results: Results) -> dict[str, Any]:
    """Columns, order and filter of the page of runs."""
    names = [objective.name for objective in results.objectives]
    metrics = ["rank", "validation/combined", "holdout/combined"]
    metrics += ["search/combined", "search_estimate/combined"]
    # Of a single objective the combined score is its own.
    metrics += [f"validation/{name}" for name in names] if len(names) > 1 else []
    tags = [keys.ORIGIN, keys.FRONT, keys.PICK, keys.PROMOTED]
    columns = [_column("metrics", metric_name(name)) for name in metrics]
    columns += [_column("tags", name) for name in tags]
    return {
        "searchFilter": f"tags.`{keys.CANDIDATE}` LIKE '%'",
        "orderByKey": _column("metrics", "validation/combined"),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def search_note(
    results: Results, table: dict[str, Any], experiment: str, runs: dict[str, str]
) -> str:
    """What a search asked and found.

    Args:
        results: The run's.
        table: Its final table.
        experiment: MLflow's id of the experiment.
        runs: MLflow's ids of the candidates' runs.
    """
    state = results.state
    found, *others = verdict_lines(table)
    asked = ", ".join(
        f"{name} ({scale.words})"
        for name in table["objectives"]
        if (scale := scale_of(table, name)) is not None
    )
    pool = ", ".join(state.started["pool_sha256"])
    lines = [
        f"**{found}**",
        "",
        f"Which merge of {pool} is best by {asked}? {table['num_candidates']:,} candidates were "
        f"searched in {table['search_seconds']:,.0f} s.",
        "",
    ]
    if results.front is not None and results.finds_front:
        columns = front_columns(table)
        rows = [row_of(entry) for entry in results.front.members]
        lines += [f"The front, {len(rows)} models, on validation:", ""]
    else:
        columns, rows = columns_of(table), table["rows"]
    headings = " | ".join(f"{column.heading} ({column.words})" for column in columns)
    lines += [f"| model | {headings} |", "| --- |" + " ---: |" * len(columns)]
    for row in rows[:MOST_ROWS]:
        name = row["candidate"]
        shown = name
        if name in runs:
            shown = f"[{name}](#/experiments/{experiment}/runs/{runs[name]}?{TRAINING})"
        if name == table["chosen"]:
            shown += " (chosen)"
        lines.append(f"| {shown} | {' | '.join(column.show(row) for column in columns)} |")
    lines += ["", "± is one standard error; ~ is an estimate from a sample of the documents.", ""]
    if table["chosen"] is not None:
        lines += [
            f"To have a model built, set the tag `{keys.PICK}` to `yes` on its run, or call "
            f"`{promote_command(results.run_dir, table['chosen'])}`. The artifact "
            "`report.html` shows everything on one page.",
            "",
        ]
    lines += [f"- {line}" for line in others]
    return _cut("\n".join(lines))


def candidate_note(results: Results, candidate: Candidate, recipe: str | None) -> str:
    """What a candidate is and scores.

    Args:
        results: The run's.
        candidate: The candidate.
        recipe: Its YAML, where it is there.
    """
    lines = [f"{_what(results, candidate)}", ""]
    shown = [s for s in SPLITS if s != "holdout" or candidate.id in results.state.holdout_opened]
    scores = {split: candidate.scores(split) for split in shown}
    known = {split: found for split, found in scores.items() if found is not None}
    if known:
        lines += [f"| objective | {' | '.join(known)} |", "| --- |" + " ---: |" * len(known)]
        for objective in results.objectives:
            scale = scale_in(results, objective.name)
            assert scale is not None
            cells = [scale.show_estimate(found[objective.name]) for found in known.values()]
            lines.append(f"| {objective.name}, {scale.words} | {' | '.join(cells)} |")
        lines.append("")
    if not candidate.failed:
        lines += [f"`{promote_command(results.run_dir, candidate.id)}`", ""]
    if recipe is not None:
        room = MOST_LETTERS - len("\n".join(lines)) - 100
        text = recipe if len(recipe) <= room else recipe[:room] + "\n# and so on"
        lines += ["```yaml", text.rstrip(), "```"]
    return _cut("\n".join(lines))


ASIDE = {
    "random": "Drawn at random, to compare with.",
    "soup": "An average that was tried for the greedy soup.",
    "ablation": "Another candidate without one of its parts, to see what the part is worth.",
}
"""What candidates are that only say something of others."""


def _what(results: Results, candidate: Candidate) -> str:
    """What a candidate is, in a sentence."""
    if candidate.failed:
        return f"Failed: {candidate.failed[:500]}"
    state = results.state
    if candidate.id == state.decided.get("chosen"):
        return "The chosen model."
    if candidate.id in results.parents:
        return "A model of the pool, as it is."
    if candidate.origin == "baseline":
        return "A merge that needs no search, to compare with."
    if candidate.origin in ASIDE:
        return ASIDE[candidate.origin]
    if results.front is not None and results.finds_front:
        place = {e.candidate: e.place for e in results.front.entries}.get(candidate.id)
        if place is not None:
            return {"front": "On the front.", "near": "Near the front, within noise."}.get(
                place, f"{place.capitalize()}."
            )
    return "A candidate of the search."


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."
