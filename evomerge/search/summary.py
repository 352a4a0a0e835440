"""What a run leaves for people: summary.json, report.html, model cards."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.choice.answers import answers_of
from evomerge.choice.table import final_table
from evomerge.files import replacing, to_json, write_text
from evomerge.journal.folder import REPORT_FILE, SUMMARY_FILE
from evomerge.plain_yaml import dump_plain
from evomerge.pool.hub import split_source
from evomerge.recipe import Recipe
from evomerge.record.report import write_html
from evomerge.record.verdicts import health_lines, verdict_lines
from evomerge.search.looks import NUM_ANSWERS, asked
from evomerge.search.run import Run
from evomerge.space.config import ParameterSpaceConfig


def write_summary(run: Run) -> None:
    """Write the final table for machines and the report for people."""
    table = final_table(run.results)
    write_text(run.run_dir / SUMMARY_FILE, to_json(table) + "\n")
    models = dict.fromkeys([table["chosen"], *run.results.parents])
    names = [name for name in models if name is not None]
    answered = asked(run.setup.tasks, answers_of(run.results, names, NUM_ANSWERS))
    with replacing(run.run_dir / REPORT_FILE) as path:
        write_html(run.results, run.recipe, path, answered)


def model_card(run: Run, candidate_id: str, recipe: Recipe) -> str:
    """README.md of an exported model: pool, recipe, scores, and the command that wrote it."""
    pool = run.setup.pool
    head = {
        "license": pool.base.license,
        "base_model": list(dict.fromkeys(split_source(each.source)[0] for each in pool)),
        "tags": ["merge", "evomerge"],
    }
    lines = [
        "---",
        *dump_plain(head).splitlines(),
        "---",
        f"# {run.setup.config.name}: {candidate_id}",
        "",
        "A merge of language models, found by evomerge.",
        "",
        "| model | source | SHA-256 | license |",
        "| --- | --- | --- | --- |",
        *(f"| {c.name} | {c.source} | `{c.sha256}` | {c.license} |" for c in pool),
        "",
        "## Scores",
        "",
        "| objective | split | score | standard error | documents |",
        "| --- | --- | --- | --- | --- |",
    ]
    candidate = run.state.candidates[candidate_id]
    for split, shown in candidate.shown_splits.items():
        if split == "holdout" and candidate_id not in run.state.holdout_opened:
            continue
        for name, estimate in (candidate.scores(split) or {}).items():
            cells = [name, shown.replace("_", " "), f"{estimate.value:.4f}"]
            cells += [f"{estimate.standard_error:.4f}", f"{estimate.num_documents}"]
            lines.append(f"| {' | '.join(cells)} |")
    table = final_table(run.results)
    if candidate_id == run.state.decided.get("chosen"):
        lines += ["", *verdict_lines(table)]
    lines += ["", "## How it was found", "", *_searched(run), *_as_list(health_lines(table))]
    lines += [
        "",
        "## Recipe",
        "",
        f"Hash `{recipe.sha256}`; the weights are rebuilt from it and the models above by "
        "`evomerge build recipe.yaml --out DIR`.",
        "",
        "```yaml",
        recipe.to_yaml().rstrip(),
        "```",
        "",
        f"Written by `evomerge export {run.run_dir} --candidate {candidate_id} --out DIR`.",
        "",
    ]
    return "\n".join(lines)


def _searched(run: Run) -> list[str]:
    """What varied, what was asked and how often, in a list."""
    config, setup = run.setup.config, run.setup
    lines = []
    for number, (phase, space) in enumerate(zip(config.all_phases, setup.spaces, strict=True)):
        kind = phase.space.kind
        if isinstance(phase.space, ParameterSpaceConfig):
            kind += f" ({', '.join(method.kind for method in phase.space.choices)})"
        count = len(run.state.searched(number))
        lines.append(
            f"space {kind}, {len(space.dimensions)} numbers; optimizer {phase.optimizer.kind}, "
            f"seed {config.seed}; {count} candidates"
        )
    for objective in (*setup.objectives, *setup.monitors):
        sizes = setup.splits.get(objective.task, {})
        counts = ", ".join(f"{len(documents)} {split}" for split, documents in sizes.items())
        lines.append(
            f"{objective.name}: {objective.metric}" + (f"; documents: {counts}" if counts else "")
        )
    return _as_list(lines)


def _as_list(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]
