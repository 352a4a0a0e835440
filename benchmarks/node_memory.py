"""What one actor more takes of a machine's memory: its candidate, and the pool not once more.

A search of random Llamas of 271 M numbers in bfloat16, with pools of one expert and of three, and
with one actor and with two (`--bar`: and with four). PSS of the whole process tree, at its peak,
in GiB: what processes map together is counted once.

- each_more: what one more actor takes.
- pool_read_again: how much of the larger pool's surplus one more actor takes besides, as a share;
  0: the pool is read once for the machine, 1: every actor has its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from build_pool import make_pool
from harness import PeakMemory, describe_machine, parse_arguments, print_table, write_figures
from scoring_subjects import random_subject, write_tasks

NUM_ACTORS = {"quick": (1, 2), "bar": (1, 2, 4), "full": (1, 2, 4)}
SIZE = "271 M"
EXPERTS = {"quick": (1, 3), "bar": (1, 3), "full": (1, 3)}
MIB_IN_GIB = 1024.0


def main() -> None:
    """Search with every pool and number of actors."""
    size, path = parse_arguments(__doc__ or "")
    figures: dict[str, Any] = {}
    rows = []
    surplus: dict[int, float] = {}
    more: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        subject = random_subject()
        for num_experts in EXPERTS[size]:
            folder = Path(name) / str(num_experts)
            pool = make_pool(folder / "pool", SIZE, num_experts, torch.device("cpu"))
            subject.tokenizer.save_pretrained(folder / "pool/base")
            (folder / "tasks").mkdir()
            write_tasks(folder / "tasks", subject, 60)
            pool_gib = sum(each.size_bytes for each in pool) / (1 << 30)
            found = {actors: peak_gib(folder, num_experts, actors) for actors in NUM_ACTORS[size]}
            first, *_, last = found
            each_more = (found[last] - found[first]) / (last - first)
            surplus[num_experts], more[num_experts] = pool_gib, each_more
            cells = [f"{found[actors]:.2f}" for actors in found]
            rows.append([f"{num_experts} experts", f"{pool_gib:.2f}", *cells, f"{each_more:.2f}"])
            figures[f"{num_experts} experts"] = {
                "pool": pool_gib,
                "peak": {str(actors): gib for actors, gib in found.items()},
                "each_more": each_more,
            }
    small, large = EXPERTS[size]
    share = (more[large] - more[small]) / (surplus[large] - surplus[small])
    headings = ["pool", "GiB", *(f"{n} actors" for n in NUM_ACTORS[size]), "each more"]
    print_table(f"Memory of a machine, {SIZE}", headings, rows)
    write_figures(figures | {"pool_read_again": share, "machine": describe_machine()}, path)


def peak_gib(folder: Path, num_experts: int, num_actors: int) -> float:
    """The process tree of a search, at its peak."""
    experts = ("one", "two", "three")[:num_experts]
    config = {
        "name": f"actors-{num_actors}",
        "pool": {"base": "pool/base", "experts": [f"pool/{expert}" for expert in experts]},
        "score": {
            "include_path": ["tasks"],
            "objectives": [{"task": "zeroshot4"}],
            "splits": {"search": 16, "validation": 8, "holdout": 8},
            "block_documents": 4,
        },
        "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
        "search": {
            "budget": {"candidates": 6},
            "finalists": 1,
            "task_arithmetic_scales": [],
        },
        "workers": {"num_actors": num_actors, "num_cpus": 1},
        "record": {"enabled": False},
    }
    path = folder / f"actors-{num_actors}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "evomerge", "search", path.name]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    with PeakMemory(process.pid) as memory:
        if process.wait():
            raise SystemExit(f"the search of {path} has ended with {process.returncode}")
    return memory.peak_mib / MIB_IN_GIB


if __name__ == "__main__":
    main()
