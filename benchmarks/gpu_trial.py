"""A trial of the whole project on a GPU, in five minutes on an H200.

It needs no Ray, Prefect or MLflow. On a machine with Python 3.12, torch for CUDA and Triton, but
without registries, bring the wheels of what is missing (transformers, lm_eval, nevergrad and what
they need, in the versions of constraints.txt) in a folder .whl of the checkout, then:

    python3 -m pip install -q --no-index --no-deps --no-compile --target .site .whl/*.whl
    export PYTHONPATH=$PWD/.site:$PWD
    python3 benchmarks/gpu_trial.py --json figures.json

| part | what it shows |
| --- | --- |
| kernels | every method's merges are those of the CPU, also with half of the pool streamed |
| scores | the demo pool's scores are those of the CPU |
| search | a whole search of the demo pool in one process, and the same again |
| builds | builds in the shape of a 7 B model: share of copy bandwidth |
| speed | tokens a second of scoring a 1 B model, beside lm-eval's own |

Each part runs in a process of its own, for a limited time: one that fails leaves the others, and
what it had found. The figures are written after every part. `--parts scores,search` runs some.
Without a GPU the same code runs on the CPU at small sizes, in less than ten minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import torch

from harness import describe_machine, make_parser, print_table, size_of, write_figures
from trial import Figures, Trial

logger = logging.getLogger("gpu_trial")

BUDGETS_S = {"kernels": 100, "scores": 60, "search": 70, "builds": 85, "speed": 85}
"""Seconds that a part may take at --bar, in the order in which they run."""

LONGER = {"quick": 1, "bar": 1, "full": 6}

ON_CPU = 1.4
"""How much longer they may take where there is no GPU."""

GRACE_S = 30
"""What a part that is out of time has to write down what it found."""

FORBIDDEN = ("mlflow", "prefect", "ray")

PACKAGES = ("torch", "triton", "numpy", "transformers", "tokenizers", "lm_eval", "nevergrad")

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class OutOfTimeError(BaseException):
    """A part has used up its time; nothing that handles failures of its own takes it for one."""


def main() -> None:
    """Run the parts, each in a process; exit with 1 where one failed."""
    arguments = parse()
    size = size_of(arguments)
    if arguments.inside is not None:
        run_inside(arguments.inside, size, arguments.json)
        return
    figures: Figures = {"size": size, **describe()}
    print(f"machine: {figures['machine']}, {figures['num_gpus']} GPUs", flush=True)
    began = time.perf_counter()
    parts: dict[str, Figures] = {}
    for name in arguments.parts:
        budget_s = BUDGETS_S[name] * LONGER[size] * (1.0 if figures["num_gpus"] else ON_CPU)
        parts[name] = run_part(name, size, budget_s)
        figures |= {"parts": parts, "seconds": time.perf_counter() - began}
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print_parts(parts, figures["seconds"])
    write_figures(figures, arguments.json)
    sys.exit(any("failed" in part for part in parts.values()))


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = make_parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter

    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in BUDGETS_S:
                raise argparse.ArgumentTypeError(f"no part {name!r}; valid: {', '.join(BUDGETS_S)}")
        return found

    parser.add_argument(
        "--parts", type=names, default=list(BUDGETS_S), help="some, with commas between them"
    )
    # How the trial calls itself: the part, and its seconds.
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def describe() -> dict[str, Any]:
    """What the figures are of; the parts say which GPU, as who asks takes some of its memory."""
    return {
        "machine": describe_machine(),
        "num_gpus": torch.cuda.device_count(),
        "python": sys.version.split()[0],
        "versions": {package: version_of(package) for package in PACKAGES},
    }


def describe_device(device: torch.device) -> str:
    """A GPU's name and memory, or the CPU."""
    if device.type == "cpu":
        return "cpu"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, {found.total_memory / (1 << 30):.0f} GiB"


def version_of(package: str) -> str:
    """Of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run_part(name: str, size: str, budget_s: float) -> Figures:
    """Run a part in a process; what it found, and why it failed, if it did."""
    environment = {**os.environ, **OFFLINE}
    if not torch.cuda.is_available():
        # To be known before Triton is imported.
        environment["TRITON_INTERPRET"] = "1"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.json"
        command = [sys.executable, __file__, f"--{size}", "--json", str(path)]
        command += ["--inside", name, str(budget_s)]
        sys.stdout.flush()
        process = subprocess.Popen(command, env=environment)
        reason = ""
        try:
            code = process.wait(budget_s + GRACE_S)
            reason = f"the process ended with {code}" if code else ""
        except subprocess.TimeoutExpired:
            reason = f"it was killed after {budget_s + GRACE_S:.0f} s"
        finally:
            process.kill()
            process.wait()
        figures: Figures = json.loads(path.read_text()) if path.exists() else {}
    if reason:
        figures.setdefault("failed", reason)
    figures["seconds"] = time.perf_counter() - began
    return figures


def run_inside(asked: list[str], size: str, path: Path) -> None:
    """Run a part in this process and write down what it found."""
    name, budget_s = asked[0], float(asked[1])
    logging.basicConfig(level=logging.WARNING)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    figures: Figures = {"device": describe_device(device)}

    def stop(_number: int, _frame: Any) -> NoReturn:
        raise OutOfTimeError(f"not done after {budget_s:.0f} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, budget_s)
    try:
        importlib.import_module(f"trial_{name}").run(Trial(size, device), figures)
        imported = [package for package in FORBIDDEN if package in sys.modules]
        if imported:
            raise RuntimeError(f"{', '.join(imported)} was imported")
    except (Exception, OutOfTimeError) as error:
        # A part's failure becomes data here.
        logger.error("%s failed", name, exc_info=True)
        figures["failed"] = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    if device.type == "cuda":
        figures["peak_gpu_gib"] = torch.cuda.max_memory_allocated(device) / (1 << 30)
    path.write_text(json.dumps(figures))


def print_parts(parts: dict[str, Figures], seconds: float) -> None:
    """What became of each."""
    rows = [
        [
            name,
            part.get("device", "-"),
            f"{part['seconds']:.0f}",
            part.get("failed", "well")[:60],
        ]
        for name, part in parts.items()
    ]
    print_table(f"the trial, {seconds:.0f} s", ["part", "device", "s", "end"], rows)


if __name__ == "__main__":
    main()
