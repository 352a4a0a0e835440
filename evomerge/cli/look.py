"""Commands that look at runs, and change nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.options import (
    LOOK,
    JsonOption,
    RunDirArgument,
    VerboseOption,
    app,
    say,
    sync_if_recorded,
)
from evomerge.errors import InputError
from evomerge.journal.folder import RUNS_DIR


@app.command(rich_help_panel=LOOK)
def front(
    run_dir: RunDirArgument,
    prefer: Annotated[
        str | None, typer.Option(metavar="A=0.7,B=0.3", help="Weights of objectives.")
    ] = None,
    at_least: Annotated[
        str | None, typer.Option(metavar="A=0.6", help="Values that are good enough.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Propose a model for the preference, and measure it first."),
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print the front, and pick from it: by default its knee."""
    from evomerge.choice import read_weights
    from evomerge.files import to_json
    from evomerge.journal import check_is_run
    from evomerge.search import Result

    check_is_run(run_dir)
    preference = read_weights("--prefer", prefer)
    proposed = _measure(run_dir, preference) if measure else None
    result = Result(run_dir)
    picked = result.pick(preference, read_weights("--at-least", at_least))
    if as_json:
        found = result.results.front
        assert found is not None
        more = {} if proposed is None else {"measured": proposed}
        typer.echo(to_json({"picked": picked, **more, **found.to_dict()}))
        return
    from evomerge.terminal import print_front

    print_front(result, verbose=verbose)
    if proposed is not None:
        typer.echo(f"measured for this preference: {proposed}")
    typer.echo(f"picked: {picked}")
    typer.echo(f"evomerge promote {run_dir} --candidate {picked}")


def _measure(run_dir: Path, preference: dict[str, float] | None) -> str:
    """Measure a model for a preference; the candidate's id."""
    from evomerge.search.preferences import measure_preference
    from evomerge.terminal import Display

    if preference is None:
        raise InputError("--measure proposes a model for a preference: give --prefer A=0.7,B=0.3")
    with Display() as display:
        proposed = measure_preference(run_dir, preference, display.progress)
    sync_if_recorded(run_dir)
    return proposed


@app.command(rich_help_panel=LOOK)
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where run folders are.")
    ] = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """List the runs of a folder, the latest first."""
    from evomerge.files import to_json
    from evomerge.search.listing import list_runs
    from evomerge.terminal import print_runs

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one that has run folders")
    found = list_runs(folder)
    if as_json:
        typer.echo(to_json([asdict(run) | {"run_dir": str(run.run_dir)} for run in found]))
        return
    if not found:
        typer.echo(f"{folder} has no runs")
        return
    print_runs(found)


@app.command(rich_help_panel=LOOK)
def show(
    run_dir: RunDirArgument,
    candidate: Annotated[
        str | None, typer.Argument(metavar="ID", help="By default the chosen one.")
    ] = None,
    answers: Annotated[int, typer.Option(metavar="N", help="Documents with answers.", min=0)] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show a candidate: scores, genome and answers beside the parents', and its recipe."""
    from evomerge.choice.answers import answers_of
    from evomerge.choice.pairs import candidate_of
    from evomerge.files import to_json
    from evomerge.journal import check_is_run
    from evomerge.search import Result
    from evomerge.search.looks import beside_parents, reading, recipe_of, with_questions
    from evomerge.terminal import print_candidate

    check_is_run(run_dir)
    result = Result(run_dir)
    name = candidate_of(result.results, candidate or result.best).id
    recipe, missing = None, ""
    try:
        recipe = recipe_of(run_dir, result.results.state.candidates[name])
    except InputError as error:
        missing = str(error)
    with reading(run_dir):
        beside = beside_parents(result.results, name)
        answered = with_questions(run_dir, answers_of(result.results, beside.names, answers))
    if as_json:
        shown = missing if recipe is None else recipe.model_dump(mode="json")
        told = {"candidate": name, **asdict(beside), "recipe": shown}
        typer.echo(to_json(told | {"answers": [asdict(each) for each in answered]}))
        return
    with reading(run_dir):
        print_candidate(result, beside, recipe, answered, missing)


@app.command(rich_help_panel=LOOK)
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run.")],
    second: Annotated[
        str, typer.Argument(metavar="RUN_DIR|ID", help="Another run, or a candidate.")
    ],
    third: Annotated[
        str | None, typer.Argument(metavar="ID", help="A second candidate of the run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the chosen models of two runs on holdout, or two candidates of one run."""
    if third is None:
        if not Path(second).exists():
            raise InputError(
                f"{second} is not a run folder; two candidates of {first} are compared by "
                f"`evomerge compare {first} ID ID`"
            )
        _compare_runs(first, Path(second), as_json)
    else:
        _compare_candidates(first, second, third, as_json)


def _compare_runs(first: Path, second: Path, as_json: bool) -> None:
    from evomerge.files import to_json
    from evomerge.search.comparison import compare_runs
    from evomerge.terminal import print_comparison

    found = compare_runs(first, second)
    if as_json:
        told = asdict(found)
        for entry, each in zip(told["objectives"], found.objectives, strict=True):
            entry["gain"]["distinguishable"] = each.gain.distinguishable
        typer.echo(to_json(told))
        return
    if found.left_out:
        typer.echo(f"left out, as only one of them has it: {', '.join(found.left_out)}", err=True)
    print_comparison(first, second, found)


def _compare_candidates(run_dir: Path, first: str, second: str, as_json: bool) -> None:
    from evomerge.choice.pairs import compare_candidates
    from evomerge.files import to_json
    from evomerge.journal import check_is_run
    from evomerge.search import Result
    from evomerge.search.looks import reading
    from evomerge.terminal import print_pairs

    check_is_run(run_dir)
    results = Result(run_dir).results
    with reading(run_dir):
        split, pairs = compare_candidates(results, first, second)
    if as_json:
        told = [
            {
                **asdict(pair),
                "gain": asdict(pair.gain) | {"distinguishable": pair.gain.distinguishable},
            }
            for pair in pairs
        ]
        typer.echo(to_json({"split": split, "objectives": told}))
        return
    print_pairs(results, split, (first, second), pairs)


@app.command(rich_help_panel=LOOK)
def report(run_dir: RunDirArgument, as_json: JsonOption = False) -> None:
    """Write the report of a run anew, also while it is going on."""
    from evomerge.journal import check_is_run
    from evomerge.search.looks import reading, write_report

    check_is_run(run_dir)
    with reading(run_dir):
        path = write_report(run_dir)
    say(as_json, f"{path}: written", file=str(path))


@app.command(rich_help_panel=LOOK)
def ui(
    run_dir: RunDirArgument,
    port: Annotated[
        int, typer.Option(help="Of a server that is started here.", min=1, max=65535)
    ] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Open a run in MLflow; starts MLflow's server here where the record is a file."""
    from evomerge.journal import check_is_run
    from evomerge.record.ui import open_run

    check_is_run(run_dir)
    open_run(run_dir, port, browser, typer.echo)
