"""What models gain on documents that stand in the text that they were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.choice.results import Results
from evomerge.objectives import Measure
from evomerge.score import Objective, Split, mean
from evomerge.score.statistics import Z_95

THRESHOLDS = (0.25, 0.5, 0.75)
"""Shares of a document, in one piece, from which on it can be marked."""

LEAST_DOCUMENTS = 5
"""Of marked and of clean ones, from which on they are compared."""


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
        low: Of the gain's 95 % interval.
        high: Of it.
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
    performance_gain: float


def gain_on_marked(
    values: Mapping[int, float], shares: Mapping[int, float], *, higher_is_better: bool
) -> Gain | None:
    """How much a model gains from documents that stand in its training text.

    A document is marked from a threshold on that is the model's own, as in ConTAM (arXiv
    2411.03923): of some, that at which the gain stands out most from its standard error.

    Args:
        values: A measure by document.
        shares: How much of a document stands in the training text; absent: nothing.
        higher_is_better: The measure's direction.

    Returns:
        The gain; None where too few documents are marked, or too few are clean.
    """
    best: tuple[float, Gain] | None = None
    for threshold in THRESHOLDS:
        is_marked = {document: shares.get(document, 0.0) >= threshold for document in values}
        marked = [value for document, value in values.items() if is_marked[document]]
        clean = [value for document, value in values.items() if not is_marked[document]]
        if min(len(marked), len(clean)) < LEAST_DOCUMENTS:
            continue
        ours, theirs = mean(marked), mean(clean)
        sign = 1.0 if higher_is_better else -1.0
        gain = sign * (ours.value - theirs.value)
        error = math.hypot(ours.standard_error, theirs.standard_error)
        share = len(marked) / len(values)
        found = Gain(
            threshold,
            len(marked),
            len(clean),
            ours.value,
            theirs.value,
            gain,
            gain - Z_95 * error,
            gain + Z_95 * error,
            share * gain,
        )
        distinct = gain / error if error else math.copysign(math.inf, gain) if gain else 0.0
        if best is None or distinct > best[0]:
            best = distinct, found
    return None if best is None else best[1]


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
                "models": {name: asdict(gain) for name, gain in gains.items() if gain is not None},
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
