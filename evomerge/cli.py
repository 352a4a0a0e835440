"""The evomerge command.

Exit codes: 0 well, 1 internal error, 2 wrong input, 3 stopped and resumable.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.errors import EvomergeError, InputError, StoppedError
from evomerge.stopping import StopNow, stopping

if TYPE_CHECKING:
    from evomerge.search import Result

app = typer.Typer(
    help="Evolutionary model-merge search for language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration (YAML).")]
RunDirArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a field.")
]
RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, or a mergekit configuration (YAML).")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Figures of the front and its surrogates too.")
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")]


@app.command()
def demo(
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="A new run folder.")] = None,
    set_: SetOption = None,
    layer_order: Annotated[
        bool, typer.Option("--layer-order", help="Search the order of two experts' layers.")
    ] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Search a front of three skills.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the main job on the demo pool."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    from evomerge.demo import CONFIG_PATH, LAYER_ORDER_PATH, PARETO_PATH

    if layer_order and pareto:
        raise InputError("demo: --layer-order or --pareto, not both")
    path = LAYER_ORDER_PATH if layer_order else PARETO_PATH if pareto else CONFIG_PATH
    _search(path, set_ or [], run_dir, verbose)


@app.command()
def check(config: ConfigArgument, set_: SetOption = None) -> None:
    """Open everything, run nothing, say what would happen."""
    from evomerge.config import load_config
    from evomerge.search.check import check as check_config

    for line in check_config(load_config(config, set_ or []), config.parent).lines:
        typer.echo(line)


@app.command()
def search(
    config: ConfigArgument,
    set_: SetOption = None,
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="A new run folder.")] = None,
    verbose: VerboseOption = False,
) -> None:
    """Search, and end with the final table."""
    _search(config, set_ or [], run_dir, verbose)


@app.command()
def resume(
    run_dir: RunDirArgument,
    strict: Annotated[
        bool, typer.Option(help="Stop where a replayed ask differs from its record.")
    ] = False,
    set_: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Go on with a run where it stopped, or with a larger budget."""
    from evomerge.search import resume as resume_run
    from evomerge.terminal import Display

    with Display() as display:
        result = resume_run(run_dir, display, strict=strict, overrides=set_ or [])
    _show(result, verbose)


@app.command()
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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
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


@app.command()
def build(recipe: RecipeArgument, out: OutOption) -> None:
    """Build a recipe and write it as a checkpoint."""
    from evomerge.models.from_recipe import build_recipe

    build_recipe(recipe, out)
    typer.echo(f"{out}: built")


@app.command()
def convert(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file.")],
) -> None:
    """Write a recipe as a mergekit configuration, or a mergekit configuration as a recipe."""
    from evomerge.models.from_recipe import convert_recipe

    convert_recipe(recipe, out)
    typer.echo(f"{out}: written")


def _measure(run_dir: Path, preference: dict[str, float] | None) -> str:
    """Measure a model for a preference; the candidate's id."""
    from evomerge.config import load_config
    from evomerge.journal.folder import CONFIG_FILE
    from evomerge.record.follow import sync_now
    from evomerge.search.preferences import measure_preference
    from evomerge.terminal import Display

    if preference is None:
        raise InputError("--measure proposes a model for a preference: give --prefer A=0.7,B=0.3")
    with Display() as display:
        proposed = measure_preference(run_dir, preference, display.progress)
    if load_config(run_dir / CONFIG_FILE).record.enabled:
        sync_now(run_dir)
    return proposed


@app.command()
def score(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL_OR_RECIPE", help="A model folder or recipe.")
    ] = None,
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="Says what is measured.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="search or validation; holdout only of a run.")
    ] = "validation",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    run: Annotated[Path | None, typer.Option(metavar="RUN_DIR", help="A run folder.")] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="ID", help="A chosen candidate or a baseline of it.")
    ] = None,
) -> None:
    """Score a model on a split: value, standard error and documents of each objective."""
    from evomerge.files import to_json
    from evomerge.search.alone import score_model
    from evomerge.search.candidates import score_candidate

    if run is not None:
        if candidate is None or model is not None:
            raise InputError("score --run RUN_DIR goes with --candidate ID, and with no model")
        scores = score_candidate(run, candidate, split)
    elif model is None or config is None:
        raise InputError("score: expected MODEL_OR_RECIPE CONFIG, or --run RUN_DIR --candidate ID")
    else:
        scores = score_model(model, config, split)
    if as_json:
        typer.echo(to_json(scores))
        return
    for name, entry in scores.items():
        typer.echo(
            f"{name}: {'~' if 'design_error' in entry else ''}{entry['value']:.4f} "
            f"±{entry['standard_error']:.4f} "
            f"({entry['num_documents']} documents)"
        )


@app.command()
def enqueue(
    run_dir: RunDirArgument,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).")],
) -> None:
    """Hand a recipe to a run, also while it is going on."""
    from evomerge.mergekit import is_mergekit
    from evomerge.recipe import read_recipe
    from evomerge.search import put_into_inbox
    from evomerge.search.inbox import is_over

    if is_mergekit(recipe):
        raise InputError(
            f"{recipe} is a mergekit configuration; `evomerge convert {recipe} --out NEW_FILE` "
            "writes it as a recipe, which can be queued"
        )
    path = put_into_inbox(run_dir, read_recipe(recipe))
    typer.echo(f"{path}: queued")
    if is_over(run_dir):
        typer.echo(
            f"the search has ended; `evomerge resume {run_dir}` scores the recipe and chooses anew"
        )


@app.command()
def export(
    run_dir: RunDirArgument,
    out: OutOption,
    candidate: Annotated[
        str | None, typer.Option(metavar="ID", help="By default the best.")
    ] = None,
) -> None:
    """Write a candidate as a checkpoint, with tokenizer, model card and recipe."""
    from evomerge.search.candidates import export_candidate

    name = export_candidate(run_dir, candidate, out)
    typer.echo(f"{out}: {name}")


@app.command()
def promote(
    run_dir: RunDirArgument,
    candidate: Annotated[
        str | None, typer.Option(metavar="ID", help="By default the chosen one.")
    ] = None,
) -> None:
    """Build a candidate, check it against its record, and register it in MLflow."""
    from evomerge.journal import check_is_run
    from evomerge.promote import promote as promote_candidate
    from evomerge.search import Result

    check_is_run(run_dir)
    promotion = promote_candidate(run_dir, candidate or Result(run_dir).best)
    for name, estimate in promotion.holdout.items():
        typer.echo(f"{name} on holdout: {estimate.value:.4f} ±{estimate.standard_error:.4f}")
    typer.echo(f"{promotion.model_dir}: {promotion.candidate}, MLflow {promotion.model_version}")


@app.command()
def sync(run_dir: RunDirArgument) -> None:
    """Rebuild the MLflow record from the run folder."""
    from evomerge.record.follow import sync_now

    sync_now(run_dir)
    typer.echo(f"{run_dir}: MLflow has everything")


@app.command()
def repair(run_dir: RunDirArgument) -> None:
    """Make a damaged journal whole again from what can be read of it."""
    from evomerge.search.mend import describe, repair

    for line in describe(run_dir, repair(run_dir)):
        typer.echo(line)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run that has ended.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare the chosen models of two runs on holdout; refuse runs that measured differently."""
    from dataclasses import asdict

    from evomerge.files import to_json
    from evomerge.search.comparison import compare_runs

    found = compare_runs(first, second)
    if as_json:
        told = asdict(found)
        for entry, each in zip(told["objectives"], found.objectives, strict=True):
            entry["gain"]["distinguishable"] = each.gain.distinguishable
        typer.echo(to_json(told))
        return
    if found.left_out:
        typer.echo(f"left out, as only one of them has it: {', '.join(found.left_out)}", err=True)
    typer.echo(f"first: {found.chosen[0]} of {first}; second: {found.chosen[1]} of {second}")
    for each in found.objectives:
        verdict = "" if each.gain.distinguishable else ": not distinguishable"
        typer.echo(
            f"{each.objective} on holdout: {each.first.value:.4f} ±{each.first.standard_error:.4f} "
            f"and {each.second.value:.4f} ±{each.second.standard_error:.4f}; the second gains "
            f"{each.gain.value:+.4f}, 95 % interval {each.gain.low:+.4f} to "
            f"{each.gain.high:+.4f}{verdict}"
        )


def _search(config: Path, overrides: list[str], run_dir: Path | None, verbose: bool) -> None:
    from evomerge.config import load_config
    from evomerge.search.api import start
    from evomerge.terminal import Display

    with Display() as display:
        result = start(load_config(config, overrides), config.parent, run_dir, display)
    _show(result, verbose)


def _show(result: Result, verbose: bool) -> None:
    from evomerge.terminal import print_result

    print_result(result, verbose=verbose)


def main() -> int:
    """Run the command; errors that a person can mend are one message without a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with stopping():
        try:
            app()
        except StopNow as signal:
            return _fail(f"stopped ({signal})", 3)
        except StoppedError as error:
            return _fail(str(error), 3)
        except InputError as error:
            return _fail(str(error), 2)
        except EvomergeError as error:
            return _fail(str(error), 1)
        except OSError as error:
            # A file or folder that cannot be read or written.
            if error.filename is None:
                raise
            return _fail(f"{error.filename}: {error.strerror}", 2)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write("".join(f"{line}\n" for line in f"error: {message}".splitlines()[:5]))
    return code
