"""Commands about single models: score, build, export, promote."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from evomerge.cli.forms import (
    DryRunOption,
    DtypeOption,
    GgufOption,
    OtherForms,
    PublicOption,
    PushOption,
    RankOption,
    ShardOption,
)
from evomerge.cli.options import (
    MODELS,
    CandidateOption,
    IgnoreOption,
    JsonOption,
    OutOption,
    RecipeArgument,
    RunDirArgument,
    app,
    say,
)
from evomerge.errors import InputError

PlainOption = Annotated[
    bool, typer.Option("--plain", help="Store a path's layers as often as they are run.")
]


@app.command(rich_help_panel=MODELS)
def build(
    recipe: RecipeArgument,
    out: OutOption,
    plain: PlainOption = False,
    ignore_unknown: IgnoreOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a recipe and write it as a checkpoint."""
    from evomerge.models.from_recipe import build_recipe

    build_recipe(recipe, out, plain=plain, ignores_unknown=ignore_unknown)
    say(as_json, f"{out}: built", model=str(out))


@app.command(rich_help_panel=MODELS)
def convert(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file.")],
    ignore_unknown: IgnoreOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a recipe as mergekit's configuration, or one of mergekit's as one of ours.

    A mergekit-evolve configuration becomes the configuration of a search.
    """
    from evomerge.begin.from_evolve import convert_search
    from evomerge.mergekit import kind_of
    from evomerge.models.from_recipe import convert_recipe

    if kind_of(recipe) == "evolve":
        convert_search(recipe, out, ignores_unknown=ignore_unknown)
    else:
        convert_recipe(recipe, out, ignores_unknown=ignore_unknown)
    say(as_json, f"{out}: written", file=str(out))


@app.command(name="import-bin", rich_help_panel=MODELS)
def import_bin(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="With pytorch_model.bin.")],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Write a model's pickled weights (pytorch_model.bin) as safetensors; no code of them runs."""
    from evomerge.models.import_bin import import_bin as write_safetensors

    write_safetensors(model, out)
    say(as_json, f"{out}: written", model=str(out))


@app.command(rich_help_panel=MODELS)
def score(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL_OR_RECIPE", help="A model folder, GGUF file or recipe."),
    ] = None,
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="Says what is measured.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="search or validation; holdout only of a run.")
    ] = "validation",
    ignore_unknown: IgnoreOption = False,
    as_json: JsonOption = False,
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
        scores = score_model(model, config, split, ignores_unknown=ignore_unknown)
    if as_json:
        typer.echo(to_json(scores))
        return
    for name, entry in scores.items():
        typer.echo(
            f"{name}: {'~' if 'design_error' in entry else ''}{entry['value']:.4f} "
            f"±{entry['standard_error']:.4f} "
            f"({entry['num_documents']} documents)"
        )


@app.command(rich_help_panel=MODELS)
def sample(
    model: Annotated[
        Path, typer.Argument(metavar="RECIPE_OR_DIR", help="A recipe, or a merged model's folder.")
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="May be given often.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text file, one prompt in each line.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of an answer.")] = 64,
    chat: Annotated[
        bool, typer.Option("--chat", help="Wrap prompts in the base's chat template.")
    ] = False,
    ignore_unknown: IgnoreOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print what base, experts and the merge write to the same prompts."""
    from evomerge.promote.sample import read_prompts
    from evomerge.promote.sample import sample as sample_models

    asked = list(prompt or ())
    if prompts is not None:
        asked += read_prompts(prompts)
    found = sample_models(
        model,
        asked,
        max_tokens=max_tokens,
        is_chat=chat,
        ignores_unknown=ignore_unknown,
        report=lambda name, number, of: typer.echo(f"{name}: {number} of {of}", err=True),
    )
    if as_json:
        say(True, "", samples=[asdict(each) for each in found])
        return
    last = None
    for each in found:
        if each.prompt != last:
            typer.echo(f"\nprompt {each.prompt!r}")
            last = each.prompt
        first, *rest = [line for line in each.text.splitlines() if line.strip()] or [""]
        typer.echo(f"  {each.model}: {first}")
        for line in rest:
            typer.echo(f"  {' ' * len(each.model)}  {line}")


@app.command(rich_help_panel=MODELS)
def export(
    run_dir: RunDirArgument,
    out: OutOption,
    candidate: CandidateOption = None,
    plain: PlainOption = False,
    dtype: DtypeOption = None,
    shard_gib: ShardOption = None,
    lora_rank: RankOption = None,
    gguf: GgufOption = False,
    push_to_hub: PushOption = None,
    public: PublicOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a candidate as a checkpoint, with tokenizer, model card and recipe."""
    from evomerge.search.candidates import export_candidate

    others = OtherForms(dtype, shard_gib, lora_rank, gguf, push_to_hub, public, dry_run)
    others.forms.require_new(out)
    name = export_candidate(run_dir, candidate, out, others.forms.check_recipe, plain=plain)
    facts: dict[str, Any] = {}
    lines = others.write(out, facts)
    say(as_json, "\n".join([f"{out}: {name}", *lines]), candidate=name, model=str(out), **facts)


@app.command(rich_help_panel=MODELS)
def promote(
    run_dir: RunDirArgument,
    candidate: CandidateOption = None,
    dtype: DtypeOption = None,
    shard_gib: ShardOption = None,
    lora_rank: RankOption = None,
    gguf: GgufOption = False,
    push_to_hub: PushOption = None,
    public: PublicOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a candidate, check it against its record, and register it in MLflow."""
    from evomerge.journal import check_is_run
    from evomerge.journal.folder import PROMOTED_DIR
    from evomerge.promote import compare_adapter
    from evomerge.promote import promote as promote_candidate
    from evomerge.search import Result

    check_is_run(run_dir)
    others = OtherForms(dtype, shard_gib, lora_rank, gguf, push_to_hub, public, dry_run)
    name = candidate or Result(run_dir).best
    others.forms.require_new(run_dir / PROMOTED_DIR / name)
    promotion = promote_candidate(run_dir, name, check=others.forms.check_recipe)
    facts: dict[str, Any] = {}
    lines = others.write(
        promotion.model_dir, facts, lambda folder: compare_adapter(run_dir, name, folder)
    )
    if as_json:
        holdout = {name: asdict(estimate) for name, estimate in promotion.holdout.items()}
        told = {"candidate": promotion.candidate, "model": str(promotion.model_dir)}
        version = promotion.model_version
        say(True, "", **told, model_version=version, holdout=holdout, **facts)
        return
    for name, estimate in promotion.holdout.items():
        typer.echo(f"{name} on holdout: {estimate.value:.4f} ±{estimate.standard_error:.4f}")
    typer.echo(f"{promotion.model_dir}: {promotion.candidate}, MLflow {promotion.model_version}")
    for line in lines:
        typer.echo(line)
