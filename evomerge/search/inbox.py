"""Recipes that are handed to a run from outside."""

from __future__ import annotations

from pathlib import Path

from evomerge.backends import engine_of, require_paths
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.journal import RunState, check_is_run
from evomerge.journal.folder import CONFIG_FILE, INBOX_DIR
from evomerge.models.path_proof import prove_paths
from evomerge.pool.pool import check_vocabulary
from evomerge.reading import first_line
from evomerge.recipe import Recipe, read_recipe
from evomerge.search.run import Run

LATE = "it came after the search had ended; `evomerge resume {run_dir}` takes it up"


def put_into_inbox(run_dir: Path, recipe: Recipe) -> Path:
    """Hand a recipe to a run, whether it is being worked on or not.

    Returns:
        The file that the driver will take up.

    Raises:
        InputError: There is no such run, the recipe's models are not its pool's, or its layers
            are nothing that the run's engine can run.
    """
    check_is_run(run_dir)
    config = load_config(run_dir / CONFIG_FILE)
    assert config.resolved is not None
    for name, member in recipe.members.items():
        if config.resolved.pool_sha256.get(name) != member.sha256:
            raise InputError(
                f"recipe member {name!r} ({member.sha256[:12]}) is not a model of this run's pool: "
                f"{', '.join(f'{n} ({h[:12]})' for n, h in config.resolved.pool_sha256.items())}"
            )
    check_vocabulary(recipe, config.pool.vocabulary)
    require_paths(engine_of(config.score), recipe)
    inbox_dir = run_dir / INBOX_DIR
    inbox_dir.mkdir(exist_ok=True)
    path = inbox_dir / f"{recipe.sha256[:16]}.yaml"
    write_text(path, recipe.to_yaml())
    return path


def read_inbox(run: Run) -> list[tuple[str, Recipe | str]]:
    """Recipes that were handed in and are not journaled yet: file names with recipes or errors."""
    found: list[tuple[str, Recipe | str]] = []
    for path in _new(run.run_dir, run.state):
        try:
            recipe = _read(path)
            run.setup.pool.check_recipe(recipe)
            require_paths(engine_of(run.setup.config.score), recipe)
            if recipe.path is not None:
                prove_paths(run.setup.pool)
            found.append((path.name, recipe))
        # Whatever lies there, it is no end of the search.
        except Exception as error:  # noqa: BLE001
            found.append((path.name, _reason(path, error)))
    return found


def unused(run_dir: Path, state: RunState) -> dict[str, str]:
    """Files of the inbox that no candidate was made from, with the reason."""
    hashes = state.started.get("pool_sha256", {})
    found = {}
    for path in _new(run_dir, state):
        try:
            recipe = _read(path)
        except Exception as error:  # noqa: BLE001
            found[path.name] = _reason(path, error)
            continue
        foreign = [n for n, m in recipe.members.items() if hashes.get(n) != m.sha256]
        found[path.name] = (
            f"{foreign[0]!r} is not a model of this run's pool"
            if foreign
            else LATE.format(run_dir=run_dir)
        )
    return found


def _read(path: Path) -> Recipe:
    """A recipe of the inbox, and nothing that a link leads to elsewhere: its lines may be shown."""
    if path.resolve().parent != path.parent.resolve():
        raise InputError("it is a link to a file elsewhere; copy the file")
    return read_recipe(path)


def _reason(path: Path, error: Exception) -> str:
    """Why a file was not used, without the name of its folder."""
    return first_line(error).removeprefix(f"{path}: ").replace(f"{path}:", "line ", 1)


def _new(run_dir: Path, state: RunState) -> list[Path]:
    return [p for p in sorted((run_dir / INBOX_DIR).glob("*.yaml")) if p.name not in state.inbox]
