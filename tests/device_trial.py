"""Build and score on the emulated device and on the CPU, and print what differs.

Run by itself, as a process keeps the device. `python device_trial.py FOLDER`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from evomerge.config import load_config
from evomerge.merge import Engine, Residence
from evomerge.models.build import empty_model
from evomerge.models.candidates import Candidates
from evomerge.pool import Pool
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import worker as worker_module
from evomerge.workers.protocol import Job, JobResult
from evomerge.workers.worker import MergeWorker
from fixtures import make_pool, make_workspace
from pools import CONFIGS, build, mixed, open_at, part, recipe_of

RANDOM = {"kind": "random"}

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


def try_spread(folder: Path, devices: Sequence[torch.device]) -> list[str]:
    """Methods whose models differ on several devices, some of it streamed there."""
    pool = open_at(make_pool(folder, dtype="bfloat16", num_hidden_layers=len(devices)))
    candidates = {kind: recipe_of(pool, part(kind)) for kind in CONFIGS}
    differing = []
    for kind, recipe in candidates.items():
        expected = build(pool, recipe)
        held = Held(empty_model(pool, devices[0], devices[1:]).state_dict())
        candidates = Candidates(pool, devices[0], held, pool_budget_bytes=len(devices) * 6_000)
        candidates.load(recipe)
        assert {tensor.device for tensor in held.tensors.values()} == set(devices)
        residences = {candidates.engine.residence, *candidates.engine.elsewhere.values()}
        assert {residence.device for residence in residences} == set(devices)
        assert all(residence.size_bytes for residence in residences)
        if any(not torch.equal(held.tensors[name].cpu(), expected[name]) for name in expected):
            differing.append(kind)
    return differing


class Held:
    """A model's tensors."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def parameters(self) -> dict[str, torch.Tensor]:
        return self.tensors

    def loaded(self, recipe: Recipe) -> None:
        pass


class Trial:
    """Candidates scored on the CPU and on devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.setup = set_up(load_config(make_workspace(folder, optimizer=RANDOM)), folder)
        pool = self.setup.pool
        members = list(pool.members)
        hops = [(members[1], 0), (members[2], 1), (members[1], 1), (members[1], 0)]
        path = LayerPath(outer=members[2], hops=tuple(Hop(model=m, layer=n) for m, n in hops))
        average = recipes.uniform(pool)
        turned = Recipe(members=pool.members, dtype=pool.dtype, parts=(), path=path)
        self.recipes = {"average": average, "path": turned}
        self.expected = self.evaluate((torch.device("cpu"),))

    def evaluate(self, devices: Sequence[torch.device]) -> dict[str, JobResult]:
        """Of each recipe, where the devices are this machine's GPUs."""
        worker_module.devices_of = lambda workers: devices
        worker = MergeWorker(self.setup.worker_spec())
        blocks = tuple(enumerate(self.setup.blocks("validation")))
        return {
            name: worker.evaluate(Job(name, recipe.to_json(), "validation", blocks, len(blocks)))
            for name, recipe in self.recipes.items()
        }

    def differing(self, devices: Sequence[torch.device]) -> list[str]:
        """What differs of the candidates' scores."""
        found = self.evaluate(devices)
        assert {result.device for result in found.values()} == {devices[0].type}
        return [
            f"{name} {what}"
            for name, result in found.items()
            for what in ("moments", "num_tokens", "weights_sha256")
            if getattr(result, what) != getattr(self.expected[name], what)
        ]


def main() -> None:
    folder = Path(sys.argv[1])
    import emulated_device

    device, *others = (torch.device(emulated_device.DEVICE_NAME, number) for number in range(3))
    # Else views that torch makes of views hold nothing.
    with torch.inference_mode():
        trial = Trial(folder / "scores")
        differ = {
            "builds": try_builds(folder / "builds", device),
            "spread builds": try_spread(folder / "spread", (device, *others)),
            "scores": trial.differing((device,)),
            "spread scores": trial.differing((device, others[0])),
        }
    print(json.dumps(differ))


main()
