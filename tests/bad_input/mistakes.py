"""Mistakes in a good workspace, and what the message about each must say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from fixtures import make_config, save_model

EXPERT = "pool/expert1"
WEIGHTS = f"{EXPERT}/model.safetensors"
INDEX = f"{EXPERT}/model.safetensors.index.json"
HEAD = "lm_head.weight"

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        change: Makes it in a copy of a good workspace.
        says: What the message must contain.
        commands: Command lines that must all refuse it.
        line: Words of the configuration's line that the message must name, if any.
    """

    change: Change
    says: tuple[str, ...]
    commands: tuple[str, ...] = ("search config.yaml",)
    line: str = ""


def config(**changes) -> Change:
    return lambda folder: make_config(folder, **changes)


def text(replace: str, by: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        assert replace in path.read_text()
        path.write_text(path.read_text().replace(replace, by, 1))

    return change


def task_text(replace: str, by: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tasks/toy_write.yaml"
        assert replace in path.read_text()
        path.write_text(path.read_text().replace(replace, by, 1))

    return change


def nothing(_folder: Path) -> None:
    pass


def no_config(folder: Path) -> None:
    (folder / "config.yaml").unlink()


def garbage_header(folder: Path) -> None:
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).write_bytes(b"\xff" * size)


def truncated(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) - 100])


def truncated_shard(folder: Path) -> None:
    path = folder / EXPERT / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / EXPERT / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        edit(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def sharded(shard_of: Callable[[str], str], drop: str | None = None) -> Change:
    """Two shards and an index that says where each tensor is; `drop` is left out of its shard."""

    def change(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(state)
        first = {n: state[n] for n in names[::2] if n != drop}
        second = {n: state[n] for n in names[1::2] if n != drop}
        save_file(first, folder / EXPERT / "a.safetensors")
        save_file(second, folder / EXPERT / "b.safetensors")
        weight_map = {n: shard_of(f"{'ab'[i % 2]}.safetensors") for i, n in enumerate(names)}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


def other_shape(folder: Path) -> None:
    shutil.rmtree(folder / EXPERT)
    save_model(folder / EXPERT, 2, intermediate_size=32)


def other_architecture(folder: Path) -> None:
    path = folder / EXPERT / "config.json"
    path.write_text(path.read_text().replace('"llama"', '"mistral"'))


def other_config(**changes) -> Change:
    def change(folder: Path) -> None:
        path = folder / EXPERT / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def other_tokenizer(folder: Path) -> None:
    path = folder / EXPERT / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer))
    Tokenizer.from_file(str(path))


def run_folder(folder: Path) -> None:
    """A run that has begun and has no candidate yet."""
    from evomerge.config import load_config
    from evomerge.search.run import start_run
    from evomerge.search.setup import set_up

    start_run(set_up(load_config(folder / "config.yaml"), folder), folder / "run").close()


def begun_run(folder: Path) -> None:
    """A run whose search has asked for a candidate."""
    from evomerge.config import load_config
    from evomerge.search.run import start_run
    from evomerge.search.setup import set_up

    run = start_run(set_up(load_config(folder / "config.yaml"), folder), folder / "run")
    run.add_asked(0, tuple(d.start for d in run.space(0).dimensions))
    run.close()


def recipe_file(folder: Path) -> None:
    from evomerge.config import load_config
    from evomerge.pool import open_pool
    from evomerge.space import recipes

    pool = open_pool(load_config(folder / "config.yaml").pool, folder)
    (folder / "recipe.yaml").write_text(recipes.uniform(pool).to_yaml())


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))


def edit_recipe(**changes) -> Change:
    def change(folder: Path) -> None:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    return change


def damaged_journal(folder: Path) -> None:
    path = folder / "run" / "journal.jsonl"
    line = path.read_text()
    path.write_text(line.replace('"seed":1', '"seed":2') + line)


def space(**changes) -> Change:
    return config(space={"kind": "parameter", "method": {"kind": "task_arithmetic"}, **changes})


def splits(**changes) -> Change:
    return config(score={"splits": {"search": 10, "validation": 10, "holdout": 20, **changes}})


def objectives(*entries: dict) -> Change:
    return config(score={"objectives": list(entries)})


CHECK = ("check config.yaml",)
