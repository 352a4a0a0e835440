"""Recipe files, ours and mergekit's, as checkpoints, and one as the other."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.mergekit import is_mergekit, mergekit_yaml, open_mergekit
from evomerge.models.export import export_checkpoint
from evomerge.pool import Pool, open_members
from evomerge.recipe import Recipe, read_recipe


def build_recipe(recipe_path: Path, out_dir: Path) -> None:
    """Write a recipe's model as a checkpoint; its members lie where the recipe says.

    A mergekit configuration is read as the recipe that it means, its models relative to the
    current folder.

    Raises:
        InputError: The recipe cannot be read, its members are not there, or the folder exists.
    """
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; name a folder that does not")
    pool, recipe = open_recipe(recipe_path)
    members = [f"- {c.name}: {c.source} (`{c.sha256}`, {c.license})" for c in pool]
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


def convert_recipe(path: Path, out_path: Path) -> None:
    """Write a recipe as a mergekit configuration, or a mergekit configuration as a recipe.

    Raises:
        InputError: It cannot be read, its models are not there, mergekit has no words for it, or
            the file exists.
    """
    if out_path.exists():
        raise InputError(f"{out_path} exists already; name a file that does not")
    pool, recipe = open_recipe(path)
    if is_mergekit(path):
        text = recipe.to_yaml()
    else:
        try:
            text = mergekit_yaml(pool, recipe)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    write_text(out_path, text)


def open_recipe(path: Path) -> tuple[Pool, Recipe]:
    """A recipe, or a mergekit configuration, and its models."""
    if is_mergekit(path):
        return open_mergekit(path)
    recipe = read_recipe(path)
    return open_members(recipe), recipe
