"""Recipes that a search is told to start from: ours, or mergekit's configurations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

from evomerge.errors import InputError
from evomerge.mergekit.document import Document, read_document
from evomerge.mergekit.kinds import is_mergekit, require_model
from evomerge.mergekit.models import check_kinds, model_entries, require_adapters_of
from evomerge.mergekit.read import recipe_of
from evomerge.methods import METHODS
from evomerge.pool import Checkpoint, ModelConfig, Pool
from evomerge.pool.adapters.adapter import is_adapter
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.hub import split_source
from evomerge.pool.vocabulary.chat import read_chat_template
from evomerge.reading import whole_path
from evomerge.recipe import MERGED, Part, Recipe, read_recipe


def read_start(path: Path, pool: Pool, is_point: Callable[[Recipe], bool]) -> Recipe:
    """A recipe of a pool's models from a file.

    A mergekit configuration's models are those of the pool that lie in the same folder (relative
    ones in the file's own), have the same hub id, or the same files.

    Args:
        path: A recipe, or a mergekit configuration.
        pool: The search's models.
        is_point: Whether a recipe is a point of the space that is searched first. A configuration
            that is one is read as that.

    Raises:
        InputError: The file, and what it has that is not valid or not the pool's.
    """
    require_model(path)
    if is_mergekit(path):
        return _in_words_of(is_point, _from_mergekit(read_document(path), pool))
    recipe = read_recipe(path)
    try:
        pool.check_recipe(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def _from_mergekit(document: Document, pool: Pool) -> Recipe:
    _check_vocabulary(document, pool)
    require_adapters_of(document.base, document.models, document.where)
    members = pool.members
    entries = model_entries(document.models)
    found = {model: _in_pool(entry, document, pool) for model, entry in entries.items()}
    for model, checkpoint in found.items():
        twin = next(other for other, same in found.items() if same is checkpoint)
        if twin != model:
            raise InputError(
                f"{document.path}: {twin!r} and {model!r} are one model, the pool's "
                f"{checkpoint.name!r}"
            )
    names = {entry.name or "": found[model].name for model, entry in entries.items()}
    base, *experts = (_called(found[model], entry.name) for model, entry in entries.items())
    named = Pool(base, tuple(experts), pool.layout, pool.dtype)
    check_kinds(named, entries, document.path)
    recipe = recipe_of(document, named)
    for part in recipe.parts:
        if METHODS.make(part.method).needs.base and found[document.base] is not pool.base:
            raise InputError(
                f"{document.path}: task vectors of {part.method.kind} are from the base model "
                f"{document.base!r}, the pool's {found[document.base].name!r}; here they are from "
                f"the pool's base, {pool.base.source}"
            )
    update: dict[str, object] = {"members": members, "vocabulary": pool.vocabulary}
    if recipe.chat_template is None:
        # Of a model that says nothing: the file's base, which need not be the pool's.
        theirs, ours = (read_chat_template(c.name, c.model_dir) for c in (base, pool.base))
        update["chat_template"] = theirs if theirs != ours else None
    return _renamed(recipe, names).model_copy(update=update)


def _check_vocabulary(document: Document, pool: Pool) -> None:
    """Rows of tokens are the search's for all candidates; a file may say the same, or nothing."""
    ours, said = pool.vocabulary, document.vocabulary
    for what, is_there in (
        ("the tokenizer of another model than the base", document.tokenizer_of is not None),
        ("rows of tokens", said is not None and said.rows is not None),
        ("rows of padding", said is not None and said.pad_to_multiple_of is not None),
    ):
        if is_there:
            raise InputError(
                f"{document.path}: it has {what}, and a search's tokens are those of its pool: "
                "build it, and name what was built in pool.experts"
            )
    if ours is None or said is None or (said.tokens, said.missing) == (ours.tokens, ours.missing):
        return
    raise InputError(
        f"{document.path}: `tokenizer_source: {said.tokens}` is a vocabulary with tokens: "
        f"{said.tokens} and missing: {said.missing}, the pool's has tokens: {ours.tokens} and "
        f"missing: {ours.missing}"
    )


def _in_pool(entry: ModelConfig, document: Document, pool: Pool) -> Checkpoint:
    model_dir = whole_path(entry.source, document.path.parent, str(document.path))
    for checkpoint in pool:
        # A quantized model's folder is not where its floats are.
        if model_dir == checkpoint.model_dir or str(model_dir) == checkpoint.source:
            return checkpoint
    for checkpoint in pool if not model_dir.is_dir() else ():
        if _is_of_hub(checkpoint, entry):
            return checkpoint
    if model_dir.is_dir() and not is_adapter(model_dir):
        sha256 = open_checkpoint(entry.source, model_dir, str(model_dir)).sha256
        for checkpoint in pool:
            if checkpoint.sha256 == sha256:
                return checkpoint
    what = "has other files than its models" if model_dir.is_dir() else "is no folder"
    raise InputError(
        f"{document.path}: model {entry.source!r} is not in the pool: it is no hub id there, and "
        f"{model_dir} {what}\n"
        f"its models are {', '.join(checkpoint.name for checkpoint in pool)}"
    )


def _is_of_hub(checkpoint: Checkpoint, entry: ModelConfig) -> bool:
    place, revision = split_source(checkpoint.source)
    is_folder = Path(place).is_absolute()
    return not is_folder and place == entry.source and entry.revision in (None, revision)


def _in_words_of(is_point: Callable[[Recipe], bool], recipe: Recipe) -> Recipe:
    """The same model as a point of a space, where it is one.

    mergekit's configurations are read with all parameters, a space says those that vary or are
    fixed: some of the others may be left out where they have their defaults. Which of equal
    magnitudes are kept is as in the space.
    """
    for same in (recipe, _keeping_all(recipe)):
        found = _point_of(is_point, same)
        if found is not None:
            return found
    return recipe


def _keeping_all(recipe: Recipe) -> Recipe:
    """With all of equal magnitudes."""
    parts = tuple(
        part.model_copy(update={"method": part.method.model_copy(update={"equal": None})})
        if hasattr(part.method, "equal")
        else part
        for part in recipe.parts
    )
    return recipe.model_copy(update={"parts": parts})


def _point_of(is_point: Callable[[Recipe], bool], recipe: Recipe) -> Recipe | None:
    """The recipe, perhaps without some parameters that have their defaults, if it is a point."""
    said = {name for part in recipe.parts for name in part.parameters}
    idle = [name for name in sorted(said) if all(_is_default(part, name) for part in recipe.parts)]
    for left_out in itertools.chain.from_iterable(
        itertools.combinations(idle, count) for count in range(len(idle) + 1)
    ):
        parts = tuple(
            part.model_copy(
                update={
                    "parameters": {
                        name: value
                        for name, value in part.parameters.items()
                        if name not in left_out
                    }
                }
            )
            for part in recipe.parts
        )
        variant = recipe.model_copy(update={"parts": parts})
        if is_point(variant):
            return variant
    return None


def _is_default(part: Part, name: str) -> bool:
    value = part.parameters.get(name)
    numbers = value.values() if isinstance(value, dict) else [value]
    known = {
        parameter.name: parameter.default for parameter in METHODS.make(part.method).parameters
    }
    return value is None or all(number == known[name] for number in numbers)


def _called(checkpoint: Checkpoint, name: str | None) -> Checkpoint:
    """The same checkpoint, its hash included, by another name."""
    twin = copy.copy(checkpoint)
    twin.name = name or ""
    return twin


def _renamed(recipe: Recipe, names: dict[str, str]) -> Recipe:
    """A recipe with other names of its members."""
    names = {**names, MERGED: MERGED}
    parts = tuple(
        part.model_copy(
            update={
                "models": tuple(names[model] for model in part.models),
                "parameters": {
                    name: {names[model]: number for model, number in value.items()}
                    if isinstance(value, dict)
                    else value
                    for name, value in part.parameters.items()
                },
            }
        )
        for part in recipe.parts
    )
    path = recipe.path
    if path is not None:
        hops = tuple(hop.model_copy(update={"model": names[hop.model]}) for hop in path.hops)
        # A search stores each layer once.
        update = {"outer": names[path.outer], "hops": hops, "stored": None}
        path = path.model_copy(update=update)
    return recipe.model_copy(update={"parts": parts, "path": path})
