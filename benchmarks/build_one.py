"""Builds candidates one at a time, each when a line is read, and prints the seconds that it took.

`python build_one.py POOL_DIR KIND TABLES_BYTES` with PYTHONPATH naming the checkout that builds:
`build_pairs.py` runs one of these for each of two commits, or for each of two methods, in turn.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from build_pool import make_recipe
from evomerge.merge import Engine
from evomerge.pool import PoolConfig, open_pool


def main(pool_dir: Path, kind: str, tables_bytes: int) -> None:
    """Build whenever a line is read."""
    torch.set_num_threads(os.cpu_count() or 1)
    names = sorted(path.name for path in pool_dir.iterdir() if path.name != "base")
    experts = tuple(str(pool_dir / name) for name in names)
    pool = open_pool(PoolConfig(base=str(pool_dir / "base"), experts=experts), pool_dir)
    state = {
        name: torch.ones(pool.layout.shapes[name], dtype=torch.bfloat16)
        for name in pool.layout.places
    }
    engine = Engine(pool, statistics_budget_bytes=tables_bytes)
    rng = np.random.default_rng(0)
    for _ in sys.stdin:
        recipe = make_recipe(pool, kind, rng)
        began = time.perf_counter()
        engine.write_into(state, recipe)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
