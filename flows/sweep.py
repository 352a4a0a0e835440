"""One configuration over seeds and variants, with one table at the end, as a Prefect flow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from evomerge.choice.table import final_table
from evomerge.errors import EvomergeError, InputError
from evomerge.journal.folder import RUNS_DIR
from evomerge.record.columns import columns_of
from evomerge.record.verdicts import verdict
from evomerge.search import Result
from flows.form import FormConfig
from flows.search import FlowHooks, loaded, search_with


@flow(name="sweep", validate_parameters=True)
def sweep(
    config: FormConfig | Path,
    seeds: list[int] | None = None,
    variants: dict[str, dict[str, Any]] | None = None,
    run_dir: Path | None = None,
    config_dir: Path | None = None,
) -> list[str]:
    """Search by one configuration with several seeds, or with several changes of it.

    Args:
        config: The configuration, or the path of its YAML file.
        seeds: One search for each; by default the configuration's own.
        variants: Overrides by name, such as {"ties": {"space.method": {"kind": "ties"}}}; one
            search for each, with each seed.
        run_dir: Where the run folders are made; by default runs/, the name and the flow run's id.
            Called again with it, searches that have ended are not repeated.
        config_dir: What the configuration's relative paths start from, by default the working
            folder; of a YAML file, it is always the file's own folder.

    Returns:
        The run folders.

    Raises:
        InputError: There is nothing to search, or a change is wrong.
        EvomergeError: A search failed; the others are told of.
    """
    name = loaded(config).name
    folder = run_dir or RUNS_DIR / f"{name}-{flow_run.id}"
    if seeds == [] or variants == {}:
        raise InputError("sweep: `seeds` and `variants` name one search each; leave them out")
    each_seed: list[int | None] = [None] if seeds is None else [*seeds]
    wanted = [
        (f"{variant or name}{'' if seed is None else f'-{seed}'}", overrides, seed)
        for variant, overrides in (variants or {"": {}}).items()
        for seed in each_seed
    ]
    labels = [label for label, _, _ in wanted]
    for label in labels:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label):
            raise InputError(
                f"sweep: {label!r} is no name of a folder; valid: letters, digits, _ . -"
            )
        if labels.count(label) > 1:
            raise InputError(f"sweep: {label!r} is named twice; each search has its own folder")
    for _, overrides, seed in wanted:
        # What is wrong is found before the first search begins.
        loaded(config, overrides, seed)
    results: dict[str, Result] = {}
    errors: list[str] = []
    for label, overrides, seed in wanted:
        get_run_logger().info("sweep: %s", label)
        try:
            place = folder / label
            hooks = FlowHooks()
            results[label] = search_with(hooks, config, place, True, overrides, seed, config_dir)
        except (EvomergeError, OSError) as error:
            errors.append(f"{label}: {error}")
        create_markdown_artifact(
            table_of(results, errors),
            key="sweep",
            description=f"{len(results)} of {len(wanted)} searches, side by side.",
        )
    if errors:
        raise EvomergeError("\n".join(errors))
    return [str(result.run_dir) for result in results.values()]


def table_of(results: dict[str, Result], errors: Sequence[str]) -> str:
    """Chosen models side by side, a row for each search.

    Args:
        results: By search.
        errors: What failed.
    """
    shown = {label: final_table(result.results) for label, result in results.items()}
    # Variants can measure other things: a column for each of them.
    columns = {
        label: {(c.heading, c.words): c for c in columns_of(table)}
        for label, table in shown.items()
    }
    heads = list(dict.fromkeys(head for each in columns.values() for head in each))
    headings = [f"{heading}<br>{words}" for heading, words in heads]
    lines = [f"| search | chosen | {' | '.join([*headings, 'verdict'])} |"]
    lines.append("| --- | --- |" + " ---: |" * len(heads) + " --- |")
    for label, table in shown.items():
        row = next((row for row in table["rows"] if row["candidate"] == table["chosen"]), None)
        own = columns[label]
        cells = [own[h].show(row) if h in own and row is not None else "-" for h in heads]
        chosen = table["chosen"] or "-"
        lines.append(f"| {label} | {chosen} | {' | '.join([*cells, verdict(table)])} |")
    return "\n".join([*lines, "", *(f"- failed: {error}" for error in errors)])
