"""Outcomes of documents that a search knows, as predictors are fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from evomerge.fidelity import Outcomes, choose
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.choice import Chosen, last_decided, latest
from evomerge.fidelity.predictors import PLAIN
from evomerge.journal import Candidate
from evomerge.objectives import METRIC_RANGES, Measure
from evomerge.score.margins import Margins, completed
from evomerge.search.run import Run
from evomerge.space import Space

NUM_INFLATING = 64
"""Candidates told last, whose residuals say how far foretold variances are off."""


@dataclass(frozen=True)
class Known:
    """What was scored of a candidate.

    Attributes:
        place: Its place in the order of the phase's tells; -1 of a baseline.
        point: Its genome, each number in [-1, 1].
        values: Outcomes by measure, shape [n]; NaN where a document was not scored.
        margins: The same of margins, of measures that have some.
        probabilities: With which documents were to be scored, by task, shape [n].
        is_full: Whether all documents are scored.
        residuals: Variance by its residuals over that which was foretold, by measure.
    """

    place: int
    point: Floats
    values: Mapping[str, Floats]
    margins: Mapping[str, Floats]
    probabilities: Mapping[str, Floats]
    is_full: bool
    residuals: Mapping[str, float]


class KnownOutcomes:
    """What a phase's candidates, and the baselines, did on search documents.

    Args:
        run: The run.
        space: The phase's.

    Attributes:
        documents: Search documents by task.
        measures: What is measured on them.
    """

    def __init__(self, run: Run, space: Space) -> None:
        self.run = run
        self.space = space
        setup = run.setup
        self.documents = {
            task: np.array(by_split["search"])
            for task, by_split in setup.splits.items()
            if by_split["search"]
        }
        self.measures = [m for m in setup.tasks.measures if m.task in self.documents]
        self._is_ordered = not any(d.integer for d in space.dimensions)
        self._known: list[Known] = []
        self._margins = Margins(setup.tasks)
        self._decided = cache(self._decide)

    def learn(self, candidate: Candidate, place: int) -> None:
        """Take in a candidate that is scored; one that has no genome says nothing of others.

        Args:
            candidate: The candidate.
            place: See `Known`.
        """
        genome = candidate.genome
        if place < 0:
            # A baseline's genome is one of the first phase's space.
            genome = self.space.to_genome(self.run.recipe(candidate))
        if genome is None:
            return
        pairs = {m.name: self.values(candidate, m) for m in self.measures}
        sampled = candidate.sampled
        self._known.append(
            Known(
                place,
                self.point(genome),
                {name: values for name, (values, _) in pairs.items()},
                self._learn_margins(candidate, {n: values for n, (values, _) in pairs.items()}),
                {m.task: pairs[m.name][1] for m in self.measures},
                candidate.is_scored("search"),
                {} if sampled is None else dict(sampled.residuals),
            )
        )

    def values(self, candidate: Candidate, measure: Measure) -> tuple[Floats, Floats]:
        """A candidate's outcomes of a measure, and with what probability each was to be scored."""
        ids = self.documents[measure.task]
        known = self.run.results.documents(candidate.id, "search", measure)
        values = np.array([known.get(int(number), np.nan) for number in ids])
        sampled = candidate.sampled
        if sampled is None or candidate.is_scored("search"):
            return values, np.ones(len(ids))
        by_id = sampled.group.probabilities_of(candidate.id)[measure.task]
        return values, np.array([by_id.get(int(number), 1.0) for number in ids])

    def _learn_margins(
        self, candidate: Candidate, values: Mapping[str, Floats]
    ) -> dict[str, Floats]:
        """A candidate's margins, of measures whose values they agree with."""
        found = {}
        for measure in self.measures:
            if not self._margins.has(measure):
                continue
            known = self.run.results.log_likelihoods(candidate.id, "search", measure.task)
            own = np.full(len(values[measure.name]), np.nan)
            for place, number in enumerate(self.documents[measure.task]):
                if int(number) in known:
                    margin = self._margins.of(measure, int(number), known[int(number)])
                    own[place] = np.nan if margin is None else margin
            complete = completed(own, values[measure.name])
            if complete is not None:
                found[measure.name] = complete
        return found

    def point(self, genome: Sequence[float]) -> Floats:
        """A genome with each number in [-1, 1]."""
        low, high = np.array([(d.low, d.high) for d in self.space.dimensions]).T
        width = np.where(high > low, high - low, 1.0)
        return np.asarray(2.0 * (np.asarray(genome) - low) / width - 1.0)

    def choose(
        self, number: int, num_told: int, before: Sequence[int], *, plain: bool = False
    ) -> dict[str, Chosen]:
        """The predictor of each measure, fitted to baselines and to what was told first.

        Which one foretells best is found out for some sets, and kept for those behind them.

        Args:
            number: Of the comparison set that it is for.
            num_told: How many tells count.
            before: How many counted for each set before it.
            plain: Foretell the same of every document.
        """
        known = self._outcomes(num_told)
        if plain:
            return {name: choose(each, 0, (PLAIN,), ordered=True) for name, each in known.items()}
        decided = last_decided(number)
        chosen = self._decided(decided, num_told if decided == number else before[decided])
        return {name: chosen[name].refitted(each) for name, each in known.items()}

    def _decide(self, number: int, num_told: int) -> dict[str, Chosen]:
        """The predictor of each measure that foretells best for a set."""
        seed = self.run.setup.config.seed * 1009 + number * 31
        return {
            name: choose(each, seed + place, ordered=self._is_ordered)
            for place, (name, each) in enumerate(self._outcomes(num_told).items())
        }

    def _outcomes(self, num_told: int) -> dict[str, Outcomes]:
        """What predictors are fitted to, by measure."""
        known = [each for each in self._known if each.place < num_told]
        known = [known[row] for row in latest([each.is_full for each in known])]
        found = {}
        for measure in self.measures:
            low, high = METRIC_RANGES.get(measure.metric, (None, None))
            name, size = measure.name, len(self.documents[measure.task])

            def rows(values: list[Floats], width: int) -> Floats:
                return np.array(values).reshape(-1, width)

            margins = [each.margins[name] for each in known if name in each.margins]
            found[name] = Outcomes(
                rows([each.point for each in known], len(self.space.dimensions)),
                rows([each.values[name] for each in known], size),
                rows([each.probabilities[measure.task] for each in known], size),
                low,
                high,
                rows(margins, size) if known and len(margins) == len(known) else None,
            )
        return found

    def inflation(self, measure: str, num_told: int) -> float:
        """Variance of a measure's residuals, of the first tells, over that which was foretold."""
        found = [
            each.residuals[measure]
            for each in self._known
            if each.place < num_told and measure in each.residuals
        ]
        return float(np.clip(np.mean(found[-NUM_INFLATING:]), 0.1, 4.0)) if found else 1.0
