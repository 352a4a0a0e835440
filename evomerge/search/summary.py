"""What a run leaves for people: summary.json, report.html, model cards."""

from __future__ import annotations

from evomerge.choice.answers import answers_of
from evomerge.choice.table import final_table
from evomerge.files import replacing, to_json, write_text
from evomerge.journal.folder import REPORT_FILE, SUMMARY_FILE
from evomerge.recipe import Recipe
from evomerge.record.report import write_html
from evomerge.record.verdicts import verdict_lines
from evomerge.search.looks import NUM_ANSWERS, asked
from evomerge.search.run import Run


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
    lines = [
        "---",
        f"license: {pool.base.license}",
        "base_model:",
        *(f"- {checkpoint.source}" for checkpoint in pool),
        "tags:",
        "- merge",
        "- evomerge",
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
    if candidate_id == run.state.decided.get("chosen"):
        table = final_table(run.results)
        lines += ["", *verdict_lines(table)]
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
