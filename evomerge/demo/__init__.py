"""The demo: a small base model, three experts of it and three tasks, made by this project itself.

`skills` says what a line of text is, `documents` writes the tasks' data, `pool` trains the models.
"""

from __future__ import annotations

from pathlib import Path

DEMO_DIR = Path(__file__).parent
POOL_DIR = DEMO_DIR / "pool"
TASKS_DIR = DEMO_DIR / "tasks"
CONFIG_PATH = DEMO_DIR / "demo.yaml"
LAYER_ORDER_PATH = DEMO_DIR / "layer_order.yaml"
PARETO_PATH = DEMO_DIR / "pareto.yaml"
BASE = "base"
EXPERTS = ("sort", "reverse", "numeral")
TASKS = tuple(f"demo_{expert}" for expert in EXPERTS)
