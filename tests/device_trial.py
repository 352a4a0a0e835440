"""Build and score on the emulated device and on the CPU, and print what differs.

Run by itself, as a process keeps the device. `python device_trial.py FOLDER`.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import torch

from evomerge.config import load_config
from evomerge.merge import Engine, Residence
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.search.setup import Setup, set_up
from evomerge.space import recipes
from evomerge.workers import worker as worker_module
from evomerge.workers.protocol import Job, JobResult
from evomerge.workers.worker import MergeWorker
from fixtures import make_config, make_pool, make_workspace
from pools import CONFIGS, build, mixed, open_at, part, recipe_of

SOME_BYTES = {1: 6_000, 3: 20_000}
"""Room for some of a test pool's tensors, by its layers."""


def try_builds(folder: Path, device: torch.device) -> list[str]:
    """Methods whose models differ; half of the pool is streamed."""
    low, tall = (
        open_at(make_pool(folder / f"{n}", dtype="bfloat16", num_hidden_layers=n)) for n in (1, 3)
    )
    candidates = {kind: (low, recipe_of(low, part(kind))) for kind in CONFIGS}
    candidates["mixed"] = tall, mixed(tall)
    return [kind for kind, (pool, recipe) in candidates.items() if differs(pool, recipe, device)]


def differs(pool: Pool, recipe: Recipe, device: torch.device) -> bool:
    expected = build(pool, recipe)
    room = SOME_BYTES[pool.layout.num_layers]
    engine = Engine(pool, device, residence=Residence(device, room))
    state = {name: torch.zeros_like(t, device=device) for name, t in expected.items()}
    for _ in range(2):
        engine.write_into(state, recipe)
    assert 0 < engine.residence.size_bytes <= room
    assert engine.residence._pinned
    return any(not torch.equal(state[name].cpu(), expected[name]) for name in expected)


def evaluate(setup: Setup) -> JobResult:
    worker = MergeWorker(setup.worker_spec())
    blocks = tuple(enumerate(setup.blocks("validation")))
    recipe = recipes.uniform(setup.pool)
    return worker.evaluate(Job("c", recipe.to_json(), "validation", blocks, len(blocks)))


def try_scores(folder: Path, device: torch.device) -> dict[str, object]:
    """What differs of a candidate's scores, and where one is scored that may have no GPU."""
    optimizer = {"kind": "random"}
    setup = set_up(load_config(make_workspace(folder, optimizer=optimizer)), folder)
    expected = evaluate(setup)

    class Torch:
        """To the worker, the device is a GPU."""

        cuda = types.SimpleNamespace(is_available=lambda: True)

        def __getattr__(self, name: str):
            return getattr(torch, name)

        def device(self, name: str) -> torch.device:
            return device if name == "cuda" else torch.device(name)

    worker_module.torch = Torch()
    found = evaluate(setup)
    assert found.device == device.type
    names = ("moments", "num_tokens", "weights_sha256")
    without_gpus = make_config(folder, optimizer=optimizer, workers={"num_gpus": 0})
    without = set_up(load_config(without_gpus), folder)
    return {
        "scores": [name for name in names if getattr(found, name) != getattr(expected, name)],
        "without_gpus": evaluate(without).device,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    import emulated_device

    device = torch.device(emulated_device.DEVICE_NAME)
    # Else views that torch makes of views hold nothing.
    with torch.inference_mode():
        differ = {
            "builds": try_builds(folder / "builds", device),
            **try_scores(folder / "scores", device),
        }
    print(json.dumps(differ))


main()
