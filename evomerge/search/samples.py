"""Which documents a comparison set is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity import inclusion_probabilities
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.config import LEAST_OF_A_TASK
from evomerge.fidelity.sample import order_keys
from evomerge.objectives import GroupMetric, Measure
from evomerge.search.run import Run

LEAST_PREFERENCE = 0.1
"""Share of all preferences that each objective has at least, where documents are drawn."""


class Samples:
    """Probabilities of a phase's documents.

    Args:
        run: The run.
        documents: Search documents by task.
        measures: What is measured on them.

    Attributes:
        documents: Search documents by task.
        measures: What is measured on them.
        weights: How much each measure weighs in the combined score; the sign says in which
            direction.
        is_sum: Whether the combined score is a weighted sum of means over documents, and nothing
            has a limit.
        whole: Tasks whose metrics need all documents.
    """

    def __init__(
        self, run: Run, documents: Mapping[str, NDArray[np.intp]], measures: Sequence[Measure]
    ) -> None:
        self.documents, self.measures = documents, measures
        self.whole = {task for task in documents if run.setup.tasks.joint_metrics(task)}
        self.weights = _weights(run, measures)
        kinds = [run.setup.tasks.kinds[objective.name] for objective in run.setup.objectives]
        limits = [goal.limit for goal in run.results.goals("search")]
        is_free = all(limit is None for limit in limits)
        are_means = not self.whole and all(
            kind.single is not None or isinstance(kind, GroupMetric) for kind in kinds
        )
        self.is_sum = is_free and are_means

    def combined(self, predicted: Mapping[str, Floats]) -> Floats:
        """The combined score that is foretold of candidates, shape [m]; more is better.

        Args:
            predicted: What is foretold, by measure, shape [m, n].
        """
        parts = [self.weights[name] * each.mean(axis=1) for name, each in predicted.items()]
        return np.asarray(np.sum(parts, axis=0))

    def spread(
        self, own: Mapping[str, Floats], inflation: Mapping[str, float]
    ) -> dict[str, Floats]:
        """What each document of a task adds to the error of the combined score.

        Args:
            own: Foretold deviation of each document, by measure, shape [n].
            inflation: Variance of residuals over that which was foretold, by measure.
        """
        spread = {task: np.zeros(len(ids)) for task, ids in self.documents.items()}
        for measure in self.measures:
            wide = own[measure.name] * np.sqrt(inflation[measure.name])
            size = len(self.documents[measure.task])
            spread[measure.task] += (self.weights[measure.name] * wide / size) ** 2
        return {task: np.sqrt(squares) for task, squares in spread.items()}

    def keys(self, predicted: Mapping[str, Floats], rng: np.random.Generator) -> dict[str, Floats]:
        """Along which each task's documents are drawn, see `order_keys`.

        Args:
            predicted: What is foretold, by measure, shape [m, n].
            rng: Of the set.
        """
        found = {task: np.zeros(len(ids)) for task, ids in self.documents.items()}
        for measure in self.measures:
            found[measure.task] += self.weights[measure.name] * predicted[measure.name].mean(axis=0)
        return {task: order_keys(each, rng) for task, each in found.items()}

    def probabilities(self, spread: Mapping[str, Floats], count: int) -> dict[str, Floats]:
        """Probabilities over all tasks; of a task whose metric needs all documents they are 1.

        Of every other task at least `LEAST_OF_A_TASK` are drawn.
        """
        free = [task for task in self.documents if task not in self.whole]
        if count >= sum(len(self.documents[task]) for task in free):
            return {task: np.ones(len(ids)) for task, ids in self.documents.items()}
        found = {task: np.ones(len(self.documents[task])) for task in self.whole}
        small: dict[str, Floats] = {}
        while free:
            rest = max(1, count - LEAST_OF_A_TASK * len(small))
            chances = inclusion_probabilities(np.concatenate([spread[t] for t in free]), rest)
            parts = np.split(chances, np.cumsum([len(spread[task]) for task in free])[:-1])
            by_task = dict(zip(free, parts, strict=True))
            few = [task for task in free if by_task[task].sum() < LEAST_OF_A_TASK]
            if not few:
                found |= by_task
                break
            small |= {t: inclusion_probabilities(spread[t], LEAST_OF_A_TASK) for t in few}
            free = [task for task in free if task not in small]
        found |= small
        return {task: found[task] for task in self.documents}


def _weights(run: Run, measures: Sequence[Measure]) -> dict[str, float]:
    """How much each measure weighs in the combined score; the sign says in which direction."""
    weights = dict.fromkeys((measure.name for measure in measures), 0.0)
    objectives = run.setup.objectives
    entries = [entry for entry in run.setup.config.score.objectives if not entry.monitor]
    total = sum(objective.preference for objective in objectives)
    for objective, entry in zip(objectives, entries, strict=True):
        # What has a limit only must be known as well.
        preference = max(objective.preference, LEAST_PREFERENCE * total)
        share = -objective.loss(1.0) * preference / total
        kind = run.setup.tasks.kinds[objective.name]
        if kind.single is not None:
            weights[kind.single.name] += share
        elif isinstance(kind, GroupMetric):
            for measure, weight in zip(kind.measures, kind.weights, strict=True):
                weights[measure.name] += share * weight
        else:
            # Of the worst of several nobody knows beforehand which it is.
            tasks = {metric.task for metric in entry.metrics}
            names = [measure.name for measure in measures if measure.task in tasks]
            for name in names:
                weights[name] += share / len(names)
    return weights
