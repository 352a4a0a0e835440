"""What models gain on documents that stand in the text that they were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evomerge.choice.results import Results
from evomerge.objectives import Measure
from evomerge.score import Objective, Split
from evomerge.score.statistics import Z_95

THRESHOLDS = (0.25, 0.5, 0.75)
"""Shares of a document, in one piece, from which on it can be marked."""

LEAST_DOCUMENTS = 5
"""Of marked and of clean ones, from which on they are compared."""

NUM_PERMUTATIONS = 1999
"""Ways to mark as many other documents that a gain is compared with."""

LEVEL = 0.05
"""Share of these ways below which a gain is one."""


@dataclass(frozen=True)
class Gain:
    """A model on the documents that are marked, and on the clean ones.

    Attributes:
        threshold: From which share on a document is marked.
        num_marked: Documents.
        num_clean: Documents.
        marked: The measure's mean over marked ones.
        clean: Its mean over clean ones.
        gain: How much better it is on marked ones.
        low: Of the gain's 95 % interval, by the spread of all documents.
        high: Of it.
        p_value: How often so great a gain comes about when documents are marked at random, at
            whichever threshold it is greatest.
        performance_gain: How much better the mean of all is than that of the clean ones: the
            paper's estimated performance gain.
    """

    threshold: float
    num_marked: int
    num_clean: int
    marked: float
    clean: float
    gain: float
    low: float
    high: float
    p_value: float
    performance_gain: float

    @property
    def distinguishable(self) -> bool:
        """Whether the model gains more than chance explains."""
        return self.p_value < LEVEL


def gain_on_marked(
    values: Mapping[int, float], shares: Mapping[int, float], *, higher_is_better: bool
) -> Gain | None:
    """How much a model gains from documents that stand in its training text.

    A document is marked from a threshold on that is the model's own, as in ConTAM (arXiv
    2411.03923): of some, that at which the gain stands out most from its standard error. A
    permutation test of the greatest of them says how often chance does as well.

    Args:
        values: A measure by document.
        shares: How much of a document stands in the training text; absent: nothing.
        higher_is_better: The measure's direction.

    Returns:
        The gain; None where too few documents are marked, or too few are clean.
    """
    scores = np.array(list(values.values()), dtype=np.float64)
    held = np.array([shares.get(document, 0.0) for document in values])
    marks = [held >= threshold for threshold in THRESHOLDS]
    usable = [
        (threshold, mark)
        for threshold, mark in zip(THRESHOLDS, marks, strict=True)
        if LEAST_DOCUMENTS <= mark.sum() <= len(mark) - LEAST_DOCUMENTS
    ]
    if not usable:
        return None
    sign = 1.0 if higher_is_better else -1.0
    spread = float(scores.std(ddof=1))
    # For each threshold: what turns documents' scores into the gain, and its standard error.
    contrasts = np.array([m / m.sum() - ~m / (~m).sum() for _, m in usable])
    errors = spread * np.array([(1 / m.sum() + 1 / (~m).sum()) ** 0.5 for _, m in usable])
    gains = sign * contrasts @ scores
    stands_out = gains / errors if spread else gains
    best = int(np.argmax(stands_out))
    rng = np.random.default_rng(len(scores))
    shuffled = np.array([rng.permutation(scores) for _ in range(NUM_PERMUTATIONS)])
    by_chance = sign * shuffled @ contrasts.T
    by_chance = (by_chance / errors if spread else by_chance).max(axis=1)
    # As many as great, with rounding: equal scores give the same gain in another order.
    as_great = int((by_chance >= stands_out[best] - 1e-9).sum())
    threshold, mark = usable[best]
    return Gain(
        threshold=threshold,
        num_marked=int(mark.sum()),
        num_clean=int((~mark).sum()),
        marked=float(scores[mark].mean()),
        clean=float(scores[~mark].mean()),
        gain=float(gains[best]),
        low=float(gains[best] - Z_95 * errors[best]),
        high=float(gains[best] + Z_95 * errors[best]),
        p_value=(as_great + 1) / (NUM_PERMUTATIONS + 1),
        performance_gain=float(mark.mean() * gains[best]),
    )


def leaks(results: Results, candidates: Iterable[str], split: Split) -> list[dict[str, Any]]:
    """For each measure of a task with leaked documents, each model's gain on them.

    Args:
        results: The run's.
        candidates: Models that are scored on the split; others are left out.
        split: The split.
    """
    known: Mapping[str, Mapping[str, float]] = results.state.started.get("leaks", {})
    names = [name for name in candidates if results.combined(name, split) is not None]
    found = []
    for measure in results.measures.values():
        shares = {int(document): share for document, share in known.get(measure.task, {}).items()}
        documents = results.state.started["splits"].get(measure.task, {}).get(split, ())
        leaked = [document for document in documents if document in shares]
        if not leaked:
            continue
        gains = {name: _gain(results, name, split, measure, shares) for name in names}
        found.append(
            {
                "measure": measure.name,
                "split": split,
                "num_documents": len(documents),
                "num_leaked": len(leaked),
                "models": {
                    name: asdict(gain) | {"distinguishable": gain.distinguishable}
                    for name, gain in gains.items()
                    if gain is not None
                },
            }
        )
    return found


def _gain(
    results: Results,
    name: str,
    split: Split,
    measure: Measure | Objective,
    shares: Mapping[int, float],
) -> Gain | None:
    values = results.documents(name, split, measure)
    return gain_on_marked(values, shares, higher_is_better=measure.higher_is_better)
