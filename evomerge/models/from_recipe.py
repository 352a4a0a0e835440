"""Recipe files, ours and mergekit's, as checkpoints, and one as the other."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.mergekit import is_mergekit, mergekit_yaml, require_model
from evomerge.models.chain import open_again, open_mergekit
from evomerge.models.export import export_checkpoint
from evomerge.models.path_proof import prove_paths
from evomerge.pool import Pool
from evomerge.recipe import Recipe, read_recipe


def build_recipe(
    recipe_path: Path, out_dir: Path, *, plain: bool = False, ignores_unknown: bool = False
) -> None:
    """Write a recipe's model as a checkpoint; its members lie where the recipe says.

    A mergekit configuration is read as the recipe that it means, its models relative to the
    current folder.

    Args:
        recipe_path: The file.
        out_dir: A new folder.
        plain: Whether a path's layers are stored as often as they are run, so that no code is
            needed to run them; for a mergekit configuration they always are.
        ignores_unknown: Whether keys that mergekit passes over are passed over, with a warning.

    Raises:
        InputError: The recipe cannot be read, its members are not there, the folder exists, or a
            plain checkpoint cannot be had, or its layers cannot be reordered.
    """
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; name a folder that does not")
    pool, recipe = open_recipe(recipe_path, ignores_unknown=ignores_unknown)
    if recipe.path is not None:
        prove_paths(pool)
    if plain:
        recipe = recipe.plain()
    built = {name for name, member in recipe.members.items() if member.recipe is not None}
    members = [
        f"- {c.name}: built from models that `recipe.yaml` names (`{c.sha256}`)"
        if c.name in built
        else f"- {c.name}: {c.source} (`{c.sha256}`, {c.license})"
        for c in pool
    ]
    card = [
        f"# {out_dir.name}",
        "",
        "A merge of language models, built by evomerge from `recipe.yaml`.",
        "",
        *members,
        "",
        f"Written by `evomerge build {recipe_path} --out {out_dir}`.",
        "",
    ]
    export_checkpoint(pool, recipe, out_dir, "\n".join(card))


def convert_recipe(path: Path, out_path: Path, *, ignores_unknown: bool = False) -> None:
    """Write a recipe as a mergekit configuration, or a mergekit configuration as a recipe.

    Args:
        path: The file.
        out_path: A new file.
        ignores_unknown: See `build_recipe`.

    Raises:
        InputError: It cannot be read, its models are not there, mergekit has no words for it, or
            the file exists.
    """
    if out_path.exists():
        raise InputError(f"{out_path} exists already; name a file that does not")
    pool, recipe = open_recipe(path, ignores_unknown=ignores_unknown)
    if is_mergekit(path):
        text = recipe.to_yaml()
    else:
        try:
            text = mergekit_yaml(pool, recipe)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    write_text(out_path, text)


def open_recipe(path: Path, *, ignores_unknown: bool = False) -> tuple[Pool, Recipe]:
    """A recipe, or a mergekit configuration, and its models; see `build_recipe`."""
    require_model(path)
    if is_mergekit(path):
        return open_mergekit(path, ignores_unknown=ignores_unknown)
    recipe = read_recipe(path)
    return open_again(recipe), recipe
