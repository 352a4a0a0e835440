"""Models that are built before the one that is wanted: members that are recipes themselves.

They are kept as checkpoints in the user's cache (`~/.cache/evomerge/merges` on Linux), each in a
folder named by its recipe's hash. What is there can be deleted at any
time; it is built again when it is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.mergekit import Document, open_document, read_documents
from evomerge.models.export import export_checkpoint
from evomerge.pool import Pool, open_members, open_models
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.pool import entry_of
from evomerge.recipe import Member, Recipe
from evomerge.space import recipes

HASH_FILE = ".sha256"
"""Beside a kept checkpoint: what its files' hash was when they were written."""


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
    *earlier, last = read_documents(path, ignores_unknown=ignores_unknown)
    for document in earlier:
        assert document.name is not None
        built[document.name] = build_once(*_opened(document, built))
    return _opened(last, built)


def open_again(recipe: Recipe) -> Pool:
    """Open a recipe's members; those that are recipes are built where they are gone.

    Raises:
        InputError: See `open_members`; or what was built is not the member.
    """
    members = {name: _there(member) for name, member in recipe.members.items()}
    return open_members(recipe.model_copy(update={"members": members}))


def build_once(pool: Pool, recipe: Recipe) -> Built:
    """A recipe's checkpoint in the cache, where it may be already.

    Raises:
        InputError: What is there was changed, or it cannot be built.
    """
    folder = user_cache_path("evomerge") / "merges" / recipe.sha256
    note = folder / HASH_FILE
    if not folder.exists():
        card = f"# {folder.name}\n\nBuilt by evomerge from `recipe.yaml`, for another recipe.\n"
        export_checkpoint(pool, recipe, folder, card)
    found = open_checkpoint(folder.name, folder, str(folder)).sha256
    if not note.exists():
        write_text(note, found)
    elif note.read_text(encoding="utf-8") != found:
        raise InputError(f"{folder}: the files have changed since they were built; delete it")
    return Built(folder, recipe)


def _opened(document: Document, built: Mapping[str, Built]) -> tuple[Pool, Recipe]:
    """A configuration's models, after those with adapters of their own; and its recipe."""
    named = {model: built[model] for model in document.models if model in built}
    named |= {model: _adapted(model) for model in document.adapted}
    folders = {model: each.folder for model, each in named.items()}
    pool, recipe = open_document(document, folders)
    by_folder = {str(each.folder): each.recipe for each in named.values()}
    members = {
        name: member.model_copy(update={"recipe": by_folder.get(member.source)})
        for name, member in recipe.members.items()
    }
    return pool, recipe.model_copy(update={"members": members})


def _adapted(model: str) -> Built:
    """A model with an adapter as a whole model."""
    base, _, adapter = model.partition("+")
    entries = [entry_of(name, source) for name, source in (("base", base), ("adapter", adapter))]
    pool = open_models(entries[0], (entries[1],), None, Path())
    return build_once(pool, recipes.member(pool, "adapter"))


def _there(member: Member) -> Member:
    if member.recipe is None or Path(member.source).exists():
        return member
    made = build_once(open_again(member.recipe), member.recipe)
    return member.model_copy(update={"source": str(made.folder)})
