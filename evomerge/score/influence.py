"""Metrics that are no mean over documents, written as one.

F1, BLEU or perplexity are functions of all documents together. The delete-m jackknife gives each
document the value metric + influence: the mean of these is the metric, and their standard error
is the jackknife's, so that everything made for means (standard errors, paired differences, rows)
holds for such a metric too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_GROUPS = 64
"""Most groups that are left out in turn: enough for a standard error good to a tenth."""


def influences(
    items: Sequence[Any], aggregate: Callable[[list[Any]], float]
) -> NDArray[np.float64]:
    """Value of each document whose mean is the metric of all of them.

    Delete-m jackknife for unequal m (Busing, Meijer and van der Leeden 1999, equations 5 to 7);
    with at most `NUM_GROUPS` documents each is a group of its own.

    Args:
        items: What the task gives the metric for each document.
        aggregate: The metric of a list of items; called once more than there are groups.

    Returns:
        Shape [n], float64; the metric's own unit. NaN where the metric is.
    """
    n = len(items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = float(aggregate(list(items)))
        if n < 2:
            return np.full(n, whole)
        num_groups = min(n, NUM_GROUPS)
        groups = np.arange(n) % num_groups
        without = np.array(
            [
                float(aggregate([item for item, g in zip(items, groups, strict=True) if g != left]))
                for left in range(num_groups)
            ]
        )
    sizes = np.bincount(groups)
    deviations = (n / sizes - 1.0) * (whole - without)
    deviations -= (sizes * deviations).sum() / n
    scale = np.sqrt(n * (n - 1) / (num_groups * (n - sizes)))
    values = (scale * deviations)[groups]
    return np.asarray(whole + values - values.mean(), dtype=np.float64)
