"""Actors that a GPU has no room for; none is needed to tell."""

from __future__ import annotations

from bad_input.mistakes import Case, Change, config

# The models of the tests take far less than a thousandth of this.
MEBIBYTE = 1.0 / 1024


def actors(num_gpus: float, gpu_memory_gib: float, statistics_gib: float = 0.25) -> Change:
    return config(
        workers={
            "num_actors": None,
            "num_cpus": 0.1,
            "num_gpus": num_gpus,
            "gpu_memory_gib": gpu_memory_gib,
            "statistics_gib": statistics_gib,
        }
    )


CASES = {
    "too many actors on a GPU": Case(
        actors(0.125, 1.0),
        (
            "workers.num_gpus: 8 actors share a GPU",
            "0.25 GiB of statistics on it: 2.",
            "it has 1.00 GiB",
            "give workers.num_gpus 0.333 or more",
        ),
    ),
    "too many statistics on a GPU": Case(
        actors(1.0, 0.125),
        ("workers.num_gpus: each actor keeps", "lower workers.statistics_gib"),
    ),
    "a budget of the pool below zero": Case(
        config(workers={"pool_gib": -1.0}), ("workers.pool_gib", "greater than or equal to 0")
    ),
    "a GPU that does not hold the pool": Case(
        actors(0.5, MEBIBYTE / 1024), ("2 actors share a GPU", "take a larger GPU")
    ),
}
