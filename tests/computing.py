"""How many threads the libraries compute with."""

from __future__ import annotations

import re

import torch
from threadpoolctl import threadpool_info


def threads_in_use() -> set[int]:
    """Every number of threads that a library would compute with now.

    MKL inside torch has a number of its own, which torch alone can tell.
    """
    by_torch = re.findall(r"(?:num|max)_threads\(\) : (\d+)", torch.__config__.parallel_info())
    by_others = [library["num_threads"] for library in threadpool_info()]
    return {*map(int, by_torch), *by_others}
