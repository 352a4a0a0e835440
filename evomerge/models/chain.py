"""Models that are built before the one that is wanted: members that are recipes themselves.

They are kept as checkpoints in the user's cache (`~/.cache/evomerge/merges` on Linux), each in a
folder named by a hash of what is in it. What is there can be deleted at any
time; it is built again when it is wanted.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from evomerge.errors import InputError
from evomerge.files import sha256_file, sha256_json, write_text
from evomerge.mergekit import (
    Document,
    LayerMadeTwiceError,
    check_parameters,
    needs_stacks,
    open_document,
    read_documents,
    restacked,
)
from evomerge.mergekit.models import whole_of
from evomerge.models.export import (
    MERGEKIT_FILE,
    RECIPE_FILE,
    export_checkpoint,
    write_companions,
)
from evomerge.models.path_proof import prove_paths
from evomerge.pool import DTYPES, ModelConfig, Pool, open_members, open_models, read_config
from evomerge.pool.adapters.adapter import is_adapter
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.config_fields import kinds_of_layers
from evomerge.pool.hub import locate
from evomerge.pool.pool import entry_of
from evomerge.pool.quantized import as_floats
from evomerge.pool.vocabulary.align import tokens_with_rows
from evomerge.recipe import Dtype, Member, Recipe
from evomerge.space import recipes
from evomerge.tokens import TokenRow, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)

HASH_FILE = ".sha256"
"""In a kept checkpoint's folder: the hash of its tensor files when they were written."""


@dataclass(frozen=True)
class Built:
    """A model that was built for another.

    Attributes:
        folder: Its checkpoint.
        recipe: What it was built from.
    """

    folder: Path
    recipe: Recipe


def open_mergekit(path: Path, *, ignores_unknown: bool = False) -> tuple[Pool, Recipe]:
    """Build what a file of mergekit configurations names, and open the last one's models.

    Args:
        path: The file; its models are relative to the current folder.
        ignores_unknown: See `read_documents`.

    Raises:
        InputError: The file or a model cannot be used.
    """
    built: dict[str, Built] = {}
    *needed, result = read_documents(path, ignores_unknown=ignores_unknown)
    for document in needed:
        assert document.name is not None
        built[document.name] = build_once(*_opened(document, built))
    return _opened(result, built)


def open_again(recipe: Recipe) -> Pool:
    """Open a recipe's members; those that are recipes are built where they are gone.

    Raises:
        InputError: See `open_members`; or what was built is not the member.
    """
    members = {name: _there(member) for name, member in recipe.members.items()}
    return open_members(recipe.model_copy(update={"members": members}))


def build_once(pool: Pool, recipe: Recipe) -> Built:
    """A recipe's checkpoint in the cache, where it may be already.

    Another process may build the same.

    Raises:
        InputError: What is there was changed, it cannot be built, or its layers cannot be
            reordered.
    """
    folder = _cache_dir() / _key(pool, recipe)
    note = folder / HASH_FILE
    if not folder.exists():
        if recipe.path is not None:
            prove_paths(pool)
        card = f"# {folder.name}\n\nBuilt by evomerge from `recipe.yaml`, for another recipe.\n"
        try:
            export_checkpoint(pool, recipe, folder, card)
        except (InputError, OSError):
            # Another process has built the same meanwhile, or it failed.
            if not folder.exists():
                raise
    found = open_checkpoint(folder.name, folder, str(folder)).sha256
    if not note.exists():
        write_text(note, found)
    elif note.read_text(encoding="utf-8") != found:
        raise InputError(f"{folder}: the files have changed since they were built; delete it")
    return Built(folder, recipe)


def _cache_dir() -> Path:
    return (user_cache_path("evomerge") / "merges").resolve()


def _key(pool: Pool, recipe: Recipe) -> str:
    """A hash of all that is in a recipe's checkpoint, and of what builds it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_companions(pool, recipe, folder)
        files = {
            path.name: sha256_file(path)
            for path in sorted(folder.iterdir())
            if path.name not in (RECIPE_FILE, MERGEKIT_FILE)
        }
    return sha256_json([recipe.sha256, version("evomerge"), files])


def _opened(document: Document, built: Mapping[str, Built]) -> tuple[Pool, Recipe]:
    """A configuration's models, after those with adapters of their own; and its recipe."""
    configs = _configs(document, built)
    kinds = {model: kinds_of_layers(config) for model, config in configs.items()}
    if kinds and needs_stacks(document, kinds):
        return _opened(*_stacked(document, configs, kinds, built))
    named = {model: built[model] for model in document.models if model in built}
    named |= {model: _adapted(model, built) for model in document.adapted}
    if document.tokenizer_of is not None:
        named[document.base] = _with_tokenizer(document, document.tokenizer_of, named)
    folders = {model: each.folder for model, each in named.items()}
    try:
        pool, recipe = open_document(document, folders)
    except LayerMadeTwiceError:
        return _opened(*_stacked(document, configs, kinds, built))
    return pool, _with_recipes(recipe, named.values())


def _configs(document: Document, built: Mapping[str, Built]) -> dict[str, PreTrainedConfig]:
    """Configurations of the models whose layers a document names, without adapters.

    Empty where it names no layers, or where something else stands in the place of a model.
    """
    if any(source.layers is None for piece in document.slices for source in piece.sources):
        return {}
    found = {}
    for model in dict.fromkeys(whole_of(model) for model in document.models):
        folder, _ = locate(_entry(model, model, built), Path())
        if is_adapter(folder):
            return {}
        config = read_config(as_floats(model, folder))
        if not hasattr(config, "num_hidden_layers"):
            return {}
        found[model] = config
    return found


def _stacked(
    document: Document,
    configs: Mapping[str, PreTrainedConfig],
    kinds: Mapping[str, tuple[str, ...]],
    built: Mapping[str, Built],
) -> tuple[Document, dict[str, Built]]:
    """A configuration that merges layers of the same numbers, and the stacks that it merges."""
    built = dict(built)
    base = whole_of(document.base)
    _require_alike(document, configs[base], configs)
    check_parameters(document, open_models(_entry("base", base, built), (), None, Path()))
    stacks, result = restacked(document, kinds, built)
    if document.tokenizer_of is not None:
        if len(set(map(len, kinds.values()))) > 1:
            raise InputError(
                f"{document.path}: the tokenizer of {document.tokenizer_of!r} goes with models "
                "that have the same number of layers"
            )
        # The base's stack is made of the base with that tokenizer.
        built[document.base] = _with_tokenizer(document, document.tokenizer_of, built)
        result = replace(result, tokenizer_of=None)
    logger.warning(
        "%s: the layers of some models are stacked first, as whole models in %s: %s",
        document.path,
        _cache_dir(),
        ", ".join(stacks),
    )
    return result, {
        **built,
        **{name: build_once(*_opened(stack, built)) for name, stack in stacks.items()},
    }


def _require_alike(
    document: Document, base: PreTrainedConfig, configs: Mapping[str, PreTrainedConfig]
) -> None:
    """Refuse models whose layers do not fit together, before any is written."""
    for model, config in configs.items():
        for field in ("model_type", "hidden_size"):
            ours, theirs = getattr(base, field, None), getattr(config, field, None)
            if ours != theirs:
                raise InputError(
                    f"{document.path}: {model!r} has {field} {theirs}, {document.base!r} has "
                    f"{ours}: models of one architecture and width can be merged"
                )


def _adapted(model: str, built: Mapping[str, Built]) -> Built:
    """A model with an adapter as a whole model."""
    whole, _, adapter = model.partition("+")
    base = _entry("base", whole, built)
    pool = open_models(base, (entry_of("adapter", adapter),), None, Path())
    return build_once(pool, _with_recipes(recipes.member(pool, "adapter"), built.values()))


def _with_tokenizer(document: Document, other: str, built: Mapping[str, Built]) -> Built:
    """A document's base with another model's tokenizer, and its rows where that has their tokens.

    As in mergekit, the row of a token that the base lacks is that of the merged model that has it,
    or the mean of those that have it, or zeros.
    """
    whole = [model for model in document.models if "+" not in model and model != document.base]
    names = {model: "base" if model == other else f"merged{n}" for n, model in enumerate(whole)}
    owner, kept = _entry("base", other, built), _entry("kept", document.base, built)
    experts = [_entry(name, model, built) for model, name in names.items() if name != "base"]

    def opened(rows: dict[str, TokenRow], dtype: Dtype | None) -> Pool:
        vocabulary = Vocabulary(tokens="base", missing="base", rows=rows or None)
        return open_models(owner, (kept, *experts), dtype, Path(), vocabulary)

    pool = opened({}, None)
    # It keeps its own type, whatever that of the tokenizer's model is.
    dtype = DTYPES[pool["kept"].tensors[pool.layout.embedding].dtype]
    tokens = {each.name: tokens_with_rows(each, pool.base, pool.layout) for each in pool}
    rows = {}
    for token in sorted(tokens["base"].keys() - tokens["kept"].keys()):
        owners = tuple(name for name in names.values() if token in tokens[name])
        single = owners[0] if len(owners) == 1 else None
        rows[token] = TokenRow(model=single, mean_of=owners if len(owners) > 1 else None)
    pool = opened(rows, dtype)
    return build_once(pool, _with_recipes(recipes.member(pool, "kept"), built.values()))


def _entry(name: str, model: str, built: Mapping[str, Built]) -> ModelConfig:
    return entry_of(name, str(built[model].folder) if model in built else model)


def _with_recipes(recipe: Recipe, built: Iterable[Built]) -> Recipe:
    """A recipe whose members say what they were built from."""
    by_folder = {str(each.folder): each.recipe for each in built}
    members = {
        name: member.model_copy(update={"recipe": by_folder.get(member.source)})
        for name, member in recipe.members.items()
    }
    return recipe.model_copy(update={"members": members})


def _there(member: Member) -> Member:
    if member.recipe is None or Path(member.source).exists():
        return member
    made = build_once(open_again(member.recipe), member.recipe)
    return member.model_copy(update={"source": str(made.folder)})
