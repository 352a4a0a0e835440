"""What benchmarks/fidelity.py searches."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import yaml

import stories_pool
from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.demo.documents import documents
from evomerge.demo.pool import train_pool
from evomerge.demo.skills import SKILLS
from evomerge.search.setup import Setup, set_up

NUM_SEARCH = 600
"""Search documents, and as many for validation."""

NUM_TRUTH = 10_002
"""Documents that no search sees, over all tasks."""


class Problem(ABC):
    """A pool, its tasks, and a space.

    Attributes:
        set_size: Candidates of a generation.
        num_candidates: Of a search.
        tasks: Names of the tasks.
    """

    set_size: int
    num_candidates: int
    tasks: tuple[str, ...]

    def missing(self) -> str | None:
        """What is not there; None: all is."""
        return None

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Write pool and tasks."""

    @abstractmethod
    def pool_and_space(self, folder: Path) -> dict[str, Any]:
        """The configuration's sections `pool`, `space` and `optimizer`."""

    def set_up(
        self, folder: Path, seed: int, num_candidates: int, changes: dict[str, Any]
    ) -> Setup:
        """What a search works with.

        Args:
            folder: Where the problem was prepared.
            seed: Of the search.
            num_candidates: Its budget.
            changes: By section; `score.splits.search` is of all tasks together.
        """
        each = {"search": NUM_SEARCH, "validation": NUM_SEARCH, "holdout": NUM_TRUTH}
        each |= changes.get("score", {}).get("splits", {})
        splits = {name: count // len(self.tasks) for name, count in each.items()}
        config = self.pool_and_space(folder) | {
            "name": "fidelity",
            "seed": seed,
            "score": {
                "include_path": [str(folder / "tasks")],
                "objectives": [{"task": name} for name in self.tasks],
                "splits": {**splits, "duplicates": "equal"},
            },
            "search": {
                "budget": {"candidates": num_candidates},
                "task_arithmetic_scales": [0.5],
                **changes.get("search", {}),
            },
            "workers": {"kind": "inline", "num_cpus": 1},
            "record": {"enabled": False},
        }
        config |= {name: changes[name] for name in ("optimizer",) if name in changes}
        path = folder / f"config-{os.getpid()}.yaml"
        path.write_text(yaml.safe_dump(config))
        return set_up(load_config(path), folder)


class Demo(Problem):
    """A demo pool, with more documents.

    Args:
        seed: Of the pool; that of seed 1 is shipped, others are trained in three minutes.
    """

    set_size = 7
    num_candidates = 98
    tasks = tuple(f"demo_{skill.name}" for skill in SKILLS)

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed

    def prepare(self, folder: Path) -> None:
        """See `Problem`."""
        if self.seed != 1:
            train_pool(self.seed, folder / "pool")
        tasks_dir = folder / "tasks"
        tasks_dir.mkdir()
        count = (2 * NUM_SEARCH + NUM_TRUTH) // len(SKILLS) + 10
        for skill in SKILLS:
            rows = documents(skill, count)
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            (tasks_dir / f"{skill.name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
            name = f"demo_{skill.name}.yaml"
            (tasks_dir / name).write_text((CONFIG_PATH.parent / "tasks" / name).read_text())

    def pool_and_space(self, folder: Path) -> dict[str, Any]:
        """See `Problem`."""
        config = yaml.safe_load(CONFIG_PATH.read_text())
        pool = config["pool"]
        models = CONFIG_PATH.parent if self.seed == 1 else folder
        pool["base"] = str(models / pool["base"])
        pool["experts"] = [str(models / name) for name in pool["experts"]]
        return {"pool": pool, "space": config["space"], "optimizer": config["optimizer"]}


class Stories(Problem):
    """stories260k and two experts, a weight for each expert and group of tensors.

    Args:
        groups: The space's.
    """

    set_size = 10
    num_candidates = 150
    tasks = ("stories_shakespeare", "stories_gsm8k")

    def __init__(self, groups: Any) -> None:
        self.groups = groups

    def missing(self) -> str | None:
        """See `Problem`."""
        is_there = (stories_pool.SHARED / "models/stories260k").is_dir()
        return None if is_there else f"{stories_pool.SHARED} has no stories260k"

    def prepare(self, folder: Path) -> None:
        """See `Problem`."""
        stories_pool.make_pool(folder)

    def pool_and_space(self, folder: Path) -> dict[str, Any]:
        """See `Problem`."""
        experts = [str(folder / name) for name in ("shakespeare", "gsm8k")]
        return {
            "pool": {"base": str(folder / "base"), "experts": experts, "dtype": "float32"},
            "space": {
                "kind": "parameter",
                "method": {"kind": "task_arithmetic"},
                "groups": self.groups,
                "vary": {"weight": {"low": 0.0, "high": 1.5}},
            },
            "optimizer": {"kind": "cma", "sigma": 0.25},
        }


QUARTERS: tuple[list[Any], ...] = ([0, "outside"], [1], [2], [3, 4])
"""Of the five layers of stories260k."""

ATTENTION_APART = [
    group
    for number, layers in enumerate(QUARTERS)
    for group in (
        {"name": f"attention-{number}", "layers": layers, "components": ["attention"]},
        {"name": f"rest-{number}", "layers": layers},
    )
]

PROBLEMS: dict[str, Problem] = {
    "3": Demo(),
    "8": Stories(4),
    "16": Stories(ATTENTION_APART),
    "3_pool_2": Demo(2),
    "3_pool_3": Demo(3),
}
"""By numbers of a genome, and what else tells them apart."""
