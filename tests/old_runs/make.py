"""Makes the run folders of this folder, with the release that is installed; never run by tests.

`python make.py OUT_DIR` in a checkout of the release whose formats are to be kept. The demo's pool
and tasks are copied to `/old/demo`: that path stands in the run folders, and tests put their own in
its place. The search that was killed is killed by SIGKILL in the middle.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import yaml

from evomerge.demo import CONFIG_PATH

PLACE = Path("/old/demo")
EXPERTS = ["sort", "reverse", "numeral"]
SHARED = ("q",)

BASE = {
    "seed": 3,
    "pool": {"base": "pool/base", "experts": [f"pool/{name}" for name in EXPERTS]},
    "score": {
        "include_path": ["tasks"],
        "objectives": [{"task": f"demo_{name}"} for name in EXPERTS],
        "splits": {"search": 12, "validation": 12, "holdout": 16},
    },
    "space": {"kind": "parameter", "method": {"kind": "ties"}},
    "record": {"enabled": False},
}

METHODS = [
    ({"kind": "linear"}, {"weight": 1.0}),
    ({"kind": "task_arithmetic"}, {"weight": 0.5}),
    ({"kind": "ties"}, {"weight": 0.7, "density": 0.4}),
    ({"kind": "ties", "normalize": False, "vectors": "same"}, {"weight": 0.3, "density": 0.2}),
    ({"kind": "dare_linear"}, {"weight": 0.4, "density": 0.6}),
    ({"kind": "dare_ties", "normalize": True}, {"weight": 0.4, "density": 0.5}),
    ({"kind": "darex_q"}, {"weight": 0.4, "density": 0.5, "q": 0.8}),
    ({"kind": "breadcrumbs"}, {"weight": 0.4, "density": 0.8, "gamma": 0.05}),
    ({"kind": "breadcrumbs_ties"}, {"weight": 0.4, "density": 0.8, "gamma": 0.05}),
    ({"kind": "della_linear"}, {"weight": 0.4, "density": 0.6}),
]

RUNS: dict[str, dict] = {
    "methods": {"search": {"budget": {"candidates": 14}, "finalists": 14}},
    "front": {
        "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
        "optimizer": {"kind": "map"},
        "search": {"budget": {"candidates": 16}, "finalists": 8},
    },
    "phases": {
        "space": None,
        "search": {"finalists": 3},
        "phases": [
            {
                "name": "parameters",
                "space": {"kind": "parameter", "method": {"kind": "dare_ties"}},
                "budget": {"candidates": 6},
            },
            {
                "name": "order",
                "space": {"kind": "layer_order", "models": ["merged", "sort"], "ends": "free"},
                "optimizer": {"kind": "nevergrad"},
                "budget": {"candidates": 6},
            },
        ],
    },
    "killed": {"search": {"budget": {"candidates": 20}, "finalists": 3}},
}


def recipe(members: dict, method: dict, parameters: dict) -> str:
    values = {
        name: number if name in SHARED else dict.fromkeys(EXPERTS, number)
        for name, number in parameters.items()
    }
    part = {"method": method, "models": EXPERTS, "parameters": values}
    return yaml.safe_dump(
        {"members": members, "parts": [part], "mask_seed": 5, "dtype": "bfloat16"}
    )


def main(out_dir: Path) -> None:
    shutil.rmtree(PLACE.parent, ignore_errors=True)
    for name in ("pool", "tasks"):
        shutil.copytree(CONFIG_PATH.parent / name, PLACE / name)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, changes in RUNS.items():
        config = {"name": name, **BASE, **changes}
        config = {key: value for key, value in config.items() if value is not None}
        if name == "methods":
            config["search"]["start_from"] = write_recipes()
        path = PLACE / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        run_dir = PLACE.parent / "runs" / name
        arguments = ["search", str(path), "--run-dir", str(run_dir)]
        process = subprocess.Popen([sys.executable, "-m", "evomerge", *arguments])
        if name == "killed":
            journal = run_dir / "journal.jsonl"
            while not (journal.exists() and journal.read_text().count('"kind":"told"') >= 9):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        process.wait()
        with tarfile.open(out_dir / f"{name}.tar.xz", "w:xz", preset=9) as file:
            file.add(run_dir, name, filter=without_pictures)
            for recipe_name in config["search"].get("start_from", []):
                file.add(PLACE / recipe_name, f"start/{recipe_name}")


def without_pictures(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith(("front.html", "report.html")) else entry


def write_recipes() -> list[str]:
    from evomerge.config import load_config
    from evomerge.pool import open_pool

    path = PLACE / "members.yaml"
    path.write_text(
        yaml.safe_dump({"name": "members", **BASE, "search": {"budget": {"candidates": 1}}})
    )
    pool = open_pool(load_config(path).pool, PLACE)
    members = {name: json.loads(m.model_dump_json()) for name, m in pool.members.items()}
    names = []
    for number, (method, parameters) in enumerate(METHODS):
        names.append(f"recipe{number}.yaml")
        (PLACE / names[-1]).write_text(recipe(members, method, parameters))
    return names


if __name__ == "__main__":
    main(Path(sys.argv[1]))
