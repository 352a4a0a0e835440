"""The build of a candidate: how near to the speed of memory, and with how much of it.

Pools of random Llamas (a base and two experts, bfloat16) of 30 M and 271 M numbers (with --full of
1 B as well, where memory allows) are merged into a live model, in place. "First" is the first
candidate of a search, with everything that is computed once for the pool; then builds are repeated,
each with new weights and new densities. Every method is measured at 30 M, at 271 M those with
compiled loops, with --full all.

Bytes are those that must move: base and experts read once, the result written once. Their speed is
given as a share of the copy bandwidth: before each build, numpy, torch and two threads' memcpy copy
a written buffer of 1 GiB; medians of builds are compared with the median of the fastest of the
three, so that what else uses the memory meanwhile (the cores of a shared machine's neighbors) slows
both. The share of the fastest single copy of the whole run stands beside it. Extra memory is the
greatest RssAnon + RssShmem seen while building, less what it was before.

With a GPU the same is done there, before, and its figures (they begin with gpu_) are written before
the CPU's: in the shape of Mistral 7B with three experts, or in the largest of the shapes that its
memory and TMPDIR hold, where the pool's files lie (58 GB at 7 B; --quick: 271 M). The copy is one
within its memory, the extra memory is torch's. The pool is brought there once: "first" is without
that. Uniforms that find no room (43 GB at 7 B) are drawn again with every build.

Pairs of methods that do the same work are built in turn, each in a process of its own, and the
ratio of their times is printed: among them the method of the plug-in package of the tests. With
BEFORE naming a checkout of another commit, each method with a loop is built in turn by this commit
and by that one.

With MERGEKIT_YAML naming the `mergekit-yaml` of an environment of its own, mergekit builds the same
merges of the 271 M pool to disk, and its seconds are printed beside ours to disk.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml

from build_beside import (
    COPY_BYTES,
    Copies,
    DeviceCopies,
    DeviceMemory,
    HostCopies,
    HostMemory,
    Memory,
    seconds,
)
from build_pairs import Way, compare
from build_pool import make_pool, make_recipe
from evomerge.merge import Engine, Residence
from evomerge.methods import METHODS
from evomerge.models.export import export_checkpoint
from evomerge.pool import Pool
from harness import describe_machine, parse_arguments, print_table, write_figures

TABLES_BYTES = 2 << 30
"""What may be kept of a pool."""

GPU_SIZES = {"7 B": 7_241_732_096, "3 B": 3_016_000_000, "1 B": 1_058_000_000, "271 M": 271_000_000}
"""Shapes for a GPU by their numbers, the largest first."""

NUM_EXPERTS_ON_GPU = 3

GPU_RESERVE_BYTES = 8 << 30
"""Left of a GPU for the copies and for what a build needs beside its tables."""

METHODS_WITH_LOOPS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "darex_q")

PAIRS = (("darex_q", "dare_linear"), ("restored_mean", "task_arithmetic"))
"""Methods that take as long as each other; the first of the last pair is another package's."""

MERGEKIT: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {},
    "ties": {"density": 0.5},
    "dare_ties": {"density": 0.5},
}


@dataclass(frozen=True)
class Place:
    """Where candidates are built.

    Attributes:
        device: The CPU or a GPU.
        tables_bytes: What may be kept of a pool.
        copies: What builds are compared with.
        watch: Watches extra memory.
        residence: Where the pool lies, if it is not the CPU.
    """

    device: torch.device
    tables_bytes: int
    copies: Copies
    watch: Callable[[], Memory]
    residence: Residence | None = None


@dataclass(frozen=True)
class Build:
    """What building with a method took.

    Attributes:
        method: Its kind.
        first_s: The first candidate.
        repeated_s: Candidates after it, median.
        best_s: The fastest of them.
        size_bytes: What must move for one.
        copy_speed: Bytes a second of a plain copy between the builds, median.
        extra_mib: Greatest extra memory of a repeated build.
        tables_mib: What is kept of the pool.
    """

    method: str
    first_s: float
    repeated_s: float
    best_s: float
    size_bytes: int
    copy_speed: float
    extra_mib: float
    tables_mib: float

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return self.size_bytes / self.repeated_s

    @property
    def share(self) -> float:
        """Its speed as a share of a copy's beside it."""
        return self.speed / self.copy_speed


def time_method(pool: Pool, kind: str, repeats: int, place: Place) -> Build:
    """Build candidates of a method in place, one after the other, with copies between them."""
    rng = np.random.default_rng(0)
    device, shapes = place.device, pool.layout.shapes
    state = {
        name: torch.ones(shapes[name], dtype=torch.bfloat16, device=device)
        for name in pool.layout.places
    }
    engine = Engine(
        pool, device, statistics_budget_bytes=place.tables_bytes, residence=place.residence
    )

    def build() -> float:
        recipe = make_recipe(pool, kind, rng)
        return seconds(lambda: engine.write_into(state, recipe), device)

    first_s = build()
    repeated, speeds = [], []
    with place.watch() as memory:
        for _ in range(repeats):
            speeds.append(place.copies.measure())
            repeated.append(build())
    num_read = len(pool.experts) + METHODS.make(METHODS[kind].config()).needs.base
    return Build(
        kind,
        first_s,
        statistics.median(repeated),
        min(repeated),
        2 * (num_read + 1) * pool.layout.num_parameters,
        max(statistics.median(way) for way in zip(*speeds, strict=True)),
        memory.peak_mib,
        engine.kept.size_bytes / (1 << 20),
    )


def print_builds(size: str, num_experts: int, builds: list[Build], place: Place) -> None:
    """A table of the builds of a pool."""
    copies = place.copies
    name = "CPU" if place.device.type == "cpu" else torch.cuda.get_device_name(place.device)
    rows = [
        [
            build.method,
            f"{build.first_s:.2f}",
            f"{build.repeated_s:.3f} ({build.best_s:.3f})",
            f"{build.size_bytes / 1e9:.2f}",
            f"{build.copy_speed / 1e9:.1f}",
            f"{build.share:.2f} ({build.speed / copies.peak:.2f})",
            f"{build.extra_mib:.0f}",
            f"{build.tables_mib:.0f}",
        ]
        for build in builds
    ]
    print_table(
        f"{size} numbers, base and {num_experts} experts, bfloat16, in place, {name} "
        f"(fastest copy {copies.peak / 1e9:.1f} GB/s)",
        [
            "method",
            "first, s",
            "repeated, s (best)",
            "GB moved",
            "copy, GB/s",
            "share of copy (of the fastest)",
            "extra MiB",
            "tables MiB",
        ],
        rows,
    )


def time_mergekit(command: str, pool: Pool, folder: Path) -> dict[str, float]:
    """Seconds that mergekit takes for the same merges, from its start to the files, and ours.

    Ours are of a process that has just opened the pool; its start is not in them.
    """
    took = {}
    rng = np.random.default_rng(0)
    for kind, extra in MERGEKIT.items():
        ours_dir = folder / "ours"
        recipe = make_recipe(pool, kind, rng)
        began = time.perf_counter()
        export_checkpoint(pool, recipe, ours_dir, "")
        took[f"disk_{kind}_seconds"] = time.perf_counter() - began
        shutil.rmtree(ours_dir)
        models = [
            {"model": str(expert.model_dir), "parameters": {"weight": 0.4, **extra}}
            for expert in pool.experts
        ]
        config: dict[str, Any] = {"merge_method": kind, "models": models, "dtype": "bfloat16"}
        if kind != "linear":
            config["base_model"] = str(pool.base.model_dir)
        path, out_dir = folder / "mergekit.yaml", folder / "mergekit"
        path.write_text(yaml.safe_dump(config))
        arguments = [command, str(path), str(out_dir), "--no-copy-tokenizer"]
        began = time.perf_counter()
        subprocess.run(arguments, check=True, capture_output=True)
        took[f"mergekit_{kind}_seconds"] = time.perf_counter() - began
        shutil.rmtree(out_dir)
    print_table(
        "271 M numbers, a new model on disk, s",
        ["method", "evomerge", "mergekit"],
        [
            [kind, *(f"{took[f'{who}_{kind}_seconds']:.1f}" for who in ("disk", "mergekit"))]
            for kind in MERGEKIT
        ],
    )
    return took


def time_pairs(folder: Path, repeats: int) -> dict[str, float]:
    """Methods against their equals, and this commit against another, in turn."""
    pairs = {f"{a}_over_{b}": (Way(a), Way(b)) for a, b in PAIRS}
    before = os.environ.get("BEFORE")
    if before:
        pairs |= {
            f"{kind}_over_before": (Way(kind), Way(kind, Path(before).resolve()))
            for kind in METHODS_WITH_LOOPS
        }
    found = {
        name: compare(first, second, folder, TABLES_BYTES, repeats)
        for name, (first, second) in pairs.items()
    }
    print_table(
        "times of two, built in turn",
        ["pair", "ratio", "quartiles of neighbors"],
        [
            [name.replace("_over_", " / "), f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]
            for name, (ratio, low, high) in found.items()
        ],
    )
    return {name: ratio for name, (ratio, _, _) in found.items()}


def measure(
    size: str, repeats: int, kinds: Iterable[str], place: Place, num_experts: int = 2
) -> dict[str, Any]:
    """Build candidates of a new pool with each method."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = make_pool(folder, size, num_experts, place.device)
        place.copies.measure()
        if place.residence is not None:
            # Everything is brought there.
            time_method(pool, "task_arithmetic", 1, place)
        builds = []
        for kind in kinds:
            with_loop = kind in METHODS_WITH_LOOPS
            builds.append(time_method(pool, kind, repeats if with_loop else 3, place))
        print_builds(size, num_experts, builds, place)
        figures: dict[str, Any] = {
            "copy_gb_per_s": statistics.median(build.copy_speed for build in builds) / 1e9,
            "copy_peak_gb_per_s": place.copies.peak / 1e9,
        }
        for build in builds:
            figures[f"{build.method}_share"] = build.share
            figures[f"{build.method}_share_of_peak"] = build.speed / place.copies.peak
            figures[f"{build.method}_seconds"] = build.repeated_s
        figures["peak_extra_mib"] = max(
            build.extra_mib for build in builds if build.method in METHODS_WITH_LOOPS
        )
        if place.device.type == "cpu" and repeats > 1:
            figures |= time_pairs(folder, repeats)
        command = os.environ.get("MERGEKIT_YAML")
        if command and size == "271 M" and place.device.type == "cpu":
            figures |= time_mergekit(command, pool, folder)
    return figures


def gpu_bytes(shape: str) -> int:
    """What a base, experts and the model that is written take of a GPU, with the reserve."""
    return 2 * GPU_SIZES[shape] * (NUM_EXPERTS_ON_GPU + 2) + GPU_RESERVE_BYTES


def measure_on_gpu(size: str) -> dict[str, Any]:
    """Build candidates of the largest pool that the GPU holds."""
    device = torch.device("cuda", 0)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    disk_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    sizes = ["271 M"] if size == "quick" else list(GPU_SIZES)
    for shape in sizes:
        file_bytes = 2 * GPU_SIZES[shape] * (NUM_EXPERTS_ON_GPU + 1)
        kept_bytes = gpu_bytes(shape)
        if kept_bytes <= free_bytes and file_bytes < disk_bytes:
            break
    tables_bytes = max(TABLES_BYTES, free_bytes - kept_bytes)
    place = Place(
        device,
        tables_bytes,
        DeviceCopies(device),
        lambda: DeviceMemory(device),
        Residence(device),
    )
    repeats = 3 if size == "quick" else 25
    figures = measure(shape, repeats, METHODS_WITH_LOOPS, place, NUM_EXPERTS_ON_GPU)
    return {"gpu_shape": shape} | {f"gpu_{name}": value for name, value in figures.items()}


def main() -> None:
    """Run the benchmark."""
    size, json_path = parse_arguments(__doc__ or "")
    print(f"machine: {describe_machine()}", flush=True)
    torch.set_num_threads(os.cpu_count() or 1)
    loops, others = METHODS_WITH_LOOPS, sorted(set(METHODS) - set(METHODS_WITH_LOOPS))
    figures: dict[str, Any] = {}
    if torch.cuda.is_available():
        figures = measure_on_gpu(size)
        write_figures(figures, json_path)
    copies = HostCopies(COPY_BYTES // 4 if size == "quick" else COPY_BYTES)
    place = Place(torch.device("cpu"), TABLES_BYTES, copies, HostMemory)
    if size == "quick":
        write_figures(measure("30 M", 3, loops, place) | figures, json_path)
        return
    measure("30 M", 9, [*loops, *others], place)
    others = others if size == "full" else []
    figures = measure("271 M", 25, [*loops, *others], place) | figures
    if size == "full" and psutil.virtual_memory().available > 20 << 30:
        measure("1 B", 9, loops, place)
    write_figures(figures, json_path)


if __name__ == "__main__":
    main()
