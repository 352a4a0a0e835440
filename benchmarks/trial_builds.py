"""Part of the trial: how fast candidates are built, as a share of copy bandwidth.

A Llama of the shape of Mistral 7B with three experts, bfloat16, or the largest shape that the GPU
holds, drawn in its memory; on the CPU one of 30 M numbers. What is measured is described in
`build.py`, whose figures these are, but for "first": kernels have been compiled before it.
"""

from __future__ import annotations

import gc
import statistics
import time

import torch

from build import (
    GPU_SIZES,
    NUM_EXPERTS_ON_GPU,
    TABLES_BYTES,
    Build,
    Place,
    gpu_bytes,
    print_builds,
    time_method,
)
from build_beside import COPY_BYTES, DeviceCopies, DeviceMemory, HostCopies, HostMemory
from build_pool import llama_of
from drawn_pool import draw_pool
from evomerge.merge import Residence
from evomerge.pool import Pool
from trial import Figures, Trial

KINDS = ("linear", "task_arithmetic", "ties", "dare_ties")

REPEATS = {"quick": (3, 5), "bar": (9, 25), "full": (25, 100)}
"""Builds of a method on the CPU and on a GPU."""

SMALL = "30 M"
"""The CPU's shape, and the one that kernels are compiled with."""


def run(trial: Trial, figures: Figures) -> None:
    """Build candidates of the largest pool that fits, method by method."""
    shapes = shapes_for(trial)
    if trial.on_gpu:
        build_all(trial, SMALL, {}, repeats=1)
    for shape in shapes:
        gc.collect()
        torch.cuda.empty_cache()
        try:
            build_all(trial, shape, figures, trial.amount(REPEATS))
            return
        except torch.OutOfMemoryError as error:
            # What the pool takes is let go with the error.
            figures[f"too_large_{shape}"] = str(error).partition("\n")[0]
    raise RuntimeError(f"the GPU holds none of {', '.join(shapes)}")


def shapes_for(trial: Trial) -> list[str]:
    """Those that should fit, the largest first."""
    if not trial.on_gpu:
        return [SMALL]
    if trial.size == "quick":
        return ["271 M"]
    free_bytes, _ = torch.cuda.mem_get_info(trial.device)
    return [shape for shape in GPU_SIZES if gpu_bytes(shape) <= free_bytes]


def build_all(trial: Trial, shape: str, figures: Figures, repeats: int) -> None:
    """Draw a pool of a shape, and build its candidates with each method."""
    place = place_of(trial, shape)
    builds: list[Build] = []
    began = time.perf_counter()
    pool = draw_pool(llama_of(shape), NUM_EXPERTS_ON_GPU, trial.device)
    # Everything is drawn, and stays where it is wanted.
    time_method(pool, "task_arithmetic", 1, place)
    figures["shape"] = shape
    figures["draw_seconds"] = time.perf_counter() - began
    try:
        for kind in KINDS:
            builds.append(time_method(pool, kind, repeats, place))
    finally:
        add_figures(builds, pool, place, figures)
    if repeats > 1:
        print_builds(shape, NUM_EXPERTS_ON_GPU, builds, place)


def place_of(trial: Trial, shape: str) -> Place:
    """Where the candidates are built, and what they are compared with."""
    device = trial.device
    if not trial.on_gpu:
        copies = HostCopies(COPY_BYTES // 4)
        return Place(device, TABLES_BYTES, copies, HostMemory)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    tables_bytes = max(TABLES_BYTES, free_bytes - gpu_bytes(shape)) if shape != SMALL else 0
    copies = DeviceCopies(device)
    return Place(device, tables_bytes, copies, lambda: DeviceMemory(device), Residence(device))


def add_figures(builds: list[Build], pool: Pool, place: Place, figures: Figures) -> None:
    """What is known so far, by name."""
    figures["num_parameters"] = pool.layout.num_parameters
    figures["num_tensors"] = len(pool.layout.places)
    if builds:
        speeds = [build.copy_speed for build in builds]
        figures["copy_gb_per_s"] = statistics.median(speeds) / 1e9
        figures["copy_peak_gb_per_s"] = place.copies.peak / 1e9
    for build in builds:
        figures |= {
            f"{build.method}_share": build.share,
            f"{build.method}_share_of_peak": build.speed / place.copies.peak,
            f"{build.method}_seconds": build.repeated_s,
            f"{build.method}_best_seconds": build.best_s,
            f"{build.method}_first_seconds": build.first_s,
            f"{build.method}_extra_mib": build.extra_mib,
            f"{build.method}_tables_mib": build.tables_mib,
        }
