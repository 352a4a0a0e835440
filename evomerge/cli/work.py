"""Commands that begin runs, go on with them, and mend them."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.notify import NotifyOption, notifying
from evomerge.cli.options import (
    BEGIN,
    SEARCH,
    CandidateOption,
    ConfigArgument,
    JsonOption,
    RunDirArgument,
    SetOption,
    VerboseOption,
    app,
    say,
    sync_if_recorded,
)
from evomerge.errors import InputError
from evomerge.journal.folder import RUNS_DIR

if TYPE_CHECKING:
    from evomerge.search import Result


@app.command(rich_help_panel=BEGIN)
def demo(
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="A new run folder.")] = None,
    set_: SetOption = None,
    layer_order: Annotated[
        bool, typer.Option("--layer-order", help="Search the order of two experts' layers.")
    ] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Search a front of three skills.")
    ] = False,
    notify: NotifyOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the main job on the demo pool."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    from evomerge.demo import CONFIG_PATH, LAYER_ORDER_PATH, PARETO_PATH

    if layer_order and pareto:
        raise InputError("demo: --layer-order or --pareto, not both")
    path = LAYER_ORDER_PATH if layer_order else PARETO_PATH if pareto else CONFIG_PATH
    _search(path, set_ or [], run_dir, notify, verbose, as_json)


@app.command(rich_help_panel=SEARCH)
def check(config: ConfigArgument, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Open everything, run nothing, say what would happen."""
    from evomerge.config import load_config
    from evomerge.search.check import check as check_config

    lines = check_config(load_config(config, set_ or []), config.parent).lines
    say(as_json, "\n".join(lines), lines=lines)


@app.command(rich_help_panel=SEARCH)
def search(
    config: ConfigArgument,
    set_: SetOption = None,
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="A new run folder.")] = None,
    notify: NotifyOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search, and end with the final table."""
    _search(config, set_ or [], run_dir, notify, verbose, as_json)


@app.command(rich_help_panel=SEARCH)
def resume(
    run_dir: RunDirArgument,
    strict: Annotated[
        bool, typer.Option(help="Stop where a replayed ask differs from its record.")
    ] = False,
    set_: SetOption = None,
    notify: NotifyOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run where it stopped, or with a larger budget."""
    from evomerge.search import resume as resume_run
    from evomerge.terminal import Display

    with notifying(notify) as facts:
        facts["run_dir"] = str(run_dir)
        with Display() as display:
            result = resume_run(run_dir, display, strict=strict, overrides=set_ or [])
        facts["verdict"] = _verdict(result)
    _show(result, verbose, as_json)


@app.command(rich_help_panel=SEARCH)
def enqueue(
    run_dir: RunDirArgument,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")],
    as_json: JsonOption = False,
) -> None:
    """Hand a recipe to a run, also while it is going on."""
    from evomerge.journal import replay
    from evomerge.mergekit import is_mergekit
    from evomerge.recipe import read_recipe
    from evomerge.search import put_into_inbox
    from evomerge.search.extend import has_ended

    if is_mergekit(recipe):
        raise InputError(
            f"{recipe} is a mergekit configuration; `evomerge convert {recipe} --out NEW_FILE` "
            "writes it as a recipe, which can be queued"
        )
    path = put_into_inbox(run_dir, read_recipe(recipe))
    ended = has_ended(replay(run_dir))
    more = f"the search has ended; `evomerge resume {run_dir}` scores the recipe and chooses anew"
    line = f"{path}: queued" + (f"\n{more}" if ended else "")
    say(as_json, line, file=str(path), search_has_ended=ended)


@app.command(rich_help_panel=SEARCH)
def explain(
    run_dir: RunDirArgument,
    candidate: CandidateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model without each of its parts, and look for a simpler one that is as good."""
    from evomerge.choice.explanation import explanation
    from evomerge.journal import check_is_run
    from evomerge.search import Result
    from evomerge.search.explain import explain_candidate
    from evomerge.terminal import Display, print_explanation

    check_is_run(run_dir)
    with Display() as display:
        name = explain_candidate(run_dir, candidate, display.progress)
    sync_if_recorded(run_dir)
    result = Result(run_dir)
    found = explanation(result.results, name)
    assert found is not None
    if as_json:
        say(True, "", **found)
        return
    print_explanation(result, found)


@app.command(rich_help_panel=SEARCH)
def repair(run_dir: RunDirArgument, as_json: JsonOption = False) -> None:
    """Make a damaged journal whole again from what can be read of it."""
    from evomerge.search.mend import describe, repair

    lines = list(describe(run_dir, repair(run_dir)))
    say(as_json, "\n".join(lines), lines=lines)


@app.command(rich_help_panel=SEARCH)
def clean(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run folder, or one that has run folders.")
    ] = RUNS_DIR,
    models: Annotated[
        bool, typer.Option("--models", help="Exported and promoted models too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what run folders can do without, and delete it with --yes; runs themselves stay."""
    from evomerge.search.clean import removable, remove

    found, busy = removable(folder, models=models)
    if yes:
        remove(found)
    total = sum(item.size_bytes for item in found)
    lines = [f"{item.path}: {item.what}, {item.size_bytes / (1 << 20):,.1f} MiB" for item in found]
    lines += [f"{run_dir}: left alone, its run is going on" for run_dir in busy]
    did = "deleted" if yes else "can go; --yes deletes it"
    lines.append(f"{total / (1 << 20):,.1f} MiB {did}" if found else "nothing can go")
    told = [{**asdict(item), "path": str(item.path)} for item in found]
    say(as_json, "\n".join(lines), items=told, size_bytes=total, deleted=yes and bool(found))


@app.command(rich_help_panel=SEARCH)
def sync(run_dir: RunDirArgument, as_json: JsonOption = False) -> None:
    """Rebuild the MLflow record from the run folder."""
    from evomerge.record.follow import sync_now

    sync_now(run_dir)
    say(as_json, f"{run_dir}: MLflow has everything", run_dir=str(run_dir))


def _search(
    config: Path,
    overrides: list[str],
    run_dir: Path | None,
    notify: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    from evomerge.config import load_config
    from evomerge.search.api import free_run_dir, start
    from evomerge.terminal import Display

    with notifying(notify) as facts:
        loaded = load_config(config, overrides)
        run_dir = run_dir or free_run_dir(loaded.name)
        facts["run_dir"] = str(run_dir)
        with Display() as display:
            result = start(loaded, config.parent, run_dir, display)
        facts["verdict"] = _verdict(result)
    _show(result, verbose, as_json)


def _verdict(result: Result) -> str:
    from evomerge.choice.table import final_table
    from evomerge.record.verdicts import verdict

    return verdict(final_table(result.results))


def _show(result: Result, verbose: bool, as_json: bool) -> None:
    from evomerge.choice.table import final_table
    from evomerge.terminal import print_result

    if as_json:
        say(True, "", run_dir=str(result.run_dir), **final_table(result.results))
    else:
        print_result(result, verbose=verbose)
