"""How many documents the samples of a search have."""

from __future__ import annotations

import numpy as np

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.config import LEAST_DOCUMENTS, SampledConfig
from evomerge.fidelity.sizes import (
    FIRST_DOCUMENTS,
    FITTED,
    NUM_FIRST,
    count_to_rank,
    design_variance,
    least_count,
    share_of_noise,
    signal_of,
)
from evomerge.search.foretold import Foretold
from evomerge.search.run import Run
from evomerge.search.samples import Samples

SHRINKING = 0.5
"""Variance of scores in a set, over that of the set before, that is counted on at least."""


class SampleSizes:
    """What the comparison sets of one phase need.

    Args:
        run: The run.
        phase: Number of the phase.
        config: How many documents.
        samples: The phase's.
        set_size: Candidates of a set.
    """

    def __init__(
        self, run: Run, phase: int, config: SampledConfig, samples: Samples, set_size: int
    ) -> None:
        self._run = run
        self._phase = phase
        self._config = config
        self._samples = samples
        self._set_size = set_size
        self._settings = run.setup.config.all_phases[phase]

    def count(self, number: int, foretold: Foretold) -> int:
        """Documents of a set's sample, over all tasks that can be sampled.

        Args:
            number: Of the set.
            foretold: What is foretold of its candidates.
        """
        if self._config.documents != "automatic":
            return self._config.documents
        documents = self._samples.documents
        spread = self._samples.spread(foretold.spread, foretold.inflation)
        free = [spread[task] for task in documents if task not in self._samples.whole]
        if not free:
            return 0
        least, size = LEAST_DOCUMENTS * len(documents), sum(map(len, free))
        if number < NUM_FIRST:
            # Who knows little foretells less of a difference than there is.
            return min(max(least, FIRST_DOCUMENTS), size)
        if self._settings.optimizer.fits_surrogates:
            return least_count(lambda count: self._fits(foretold, spread, count), least, size)
        means = self._samples.combined(foretold.predicted)
        foreseen = signal_of(means, np.zeros_like(means))
        signal = max(foreseen, SHRINKING * self._seen())
        return count_to_rank(signal, np.concatenate(free), least)

    def _fits(self, foretold: Foretold, spread: dict[str, Floats], count: int) -> bool:
        """Whether surrogates of so many documents are nearly as good as of all of them.

        What all documents leave unknown of a measure is the same for every candidate's score; what
        samples add is their own, and a surrogate averages over it.
        """
        probabilities = self._samples.probabilities(spread, count)
        told = sum(c.told is not None for c in self._run.state.searched(self._phase))
        num_candidates = max(told, self._settings.budget.candidates or 0)
        num_dimensions = len(self._run.space(self._phase).dimensions)
        share = share_of_noise(num_dimensions, num_candidates)
        for measure in self._samples.measures:
            name, size = measure.name, len(self._samples.documents[measure.task])
            own = foretold.inflation[name] * foretold.spread[name] ** 2
            left = float(foretold.predicted[name].var(axis=1).mean() + own.mean()) / size
            added = design_variance(np.sqrt(own) / size, probabilities[measure.task])
            if share * added > FITTED * left:
                return False
        return True

    def _seen(self) -> float:
        """Variance of the combined scores of those that were told last, as many as a set has."""
        told = [c for c in self._run.state.searched(self._phase) if c.told is not None]
        told = sorted(told, key=lambda candidate: candidate.told or 0)[-self._set_size :]
        weights = self._samples.weights
        values, variances = [], []
        # Of measures alone: a number of the recipe says nothing of documents.
        for scores in (candidate.scores("search") for candidate in told):
            if scores is not None and weights.keys() <= scores.keys():
                values.append(sum(w * scores[name].value for name, w in weights.items()))
                squares = ((w * scores[name].design_error) ** 2 for name, w in weights.items())
                variances.append(sum(squares))
        return signal_of(np.array(values), np.array(variances))
