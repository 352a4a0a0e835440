"""A search on samples of documents: what is scored, foretold and estimated of its candidates.

Nothing here depends on arrival: a comparison set's predictors are fitted to what had been told when
its first candidate was asked, and everything else follows from the journal and the documents' rows.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.choice.fidelity import calibration
from evomerge.errors import CandidateError, EvomergeError
from evomerge.fidelity import difference_estimate, draw, spread_of
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.choice import Chosen
from evomerge.fidelity.config import SampledConfig
from evomerge.fidelity.estimate import DocumentEstimate
from evomerge.fidelity.predictors import PLAIN
from evomerge.journal import Candidate, ComparisonSet
from evomerge.objectives import METRIC_RANGES, Measure
from evomerge.optimize import Optimizer, Steered
from evomerge.optimize.fronts import violations
from evomerge.score import Approximation
from evomerge.score.faults import told_as
from evomerge.search.derive import scored_model
from evomerge.search.foretold import Foretold
from evomerge.search.foretold_best import foretold_best
from evomerge.search.known import KnownOutcomes
from evomerge.search.run import Run
from evomerge.search.sample_sizes import SampleSizes
from evomerge.search.samples import Samples
from evomerge.space import Genome, Space

PROPOSING, CALIBRATING = 1 << 20, 1 << 21
"""What random numbers are for, beside rounds of races."""

SET_SIZE = 8
"""Candidates of a set, where the optimizer has no generations."""


class Assistance:
    """The samples and estimates of one phase.

    Args:
        run: The run.
        phase: Number of the phase.
        config: How many documents.
        population: Candidates of a generation; None: the optimizer has none.
    """

    def __init__(self, run: Run, phase: int, config: SampledConfig, population: int | None) -> None:
        self.run = run
        self.phase = phase
        self.config = config
        self.set_size = population or SET_SIZE
        self.has_generations = population is not None
        self.space: Space = run.space(phase)
        self._state = run.state.phases[phase]
        self._outcomes = KnownOutcomes(run, self.space)
        self._documents, self._measures = self._outcomes.documents, self._outcomes.measures
        self._samples = Samples(run, self._documents, self._measures)
        self._sizes = SampleSizes(run, phase, config, self._samples, self.set_size)
        self._num_told = self._num_scored = 0
        # A set's candidates are estimated one after another.
        self._foretold = lru_cache(maxsize=4)(self._foretell)
        self._chosen = lru_cache(maxsize=4)(self._choose)

    def restore(self) -> None:
        """Take in what the journal says was told."""
        for candidate in self.run.state.of_origin("baseline"):
            if candidate.is_scored("search"):
                self._outcomes.learn(candidate, -1)
        told = [c for c in self.run.state.searched(self.phase) if c.told is not None]
        for candidate in sorted(told, key=lambda candidate: candidate.told or 0):
            self.learn(candidate)

    def learn(self, candidate: Candidate) -> None:
        """Take in a candidate that was told."""
        if candidate.scores("search") is not None:
            self._outcomes.learn(candidate, self._num_told)
            self._num_scored += 1
        self._num_told += 1

    def open(self, candidates: Sequence[Candidate]) -> None:
        """Draw the sample of candidates that are to be compared, and journal it."""
        number, names = len(self._state.sets), tuple(c.id for c in candidates)
        foretold = self._foretold(number, self._num_told, names)
        count, spread = self._count(number, foretold), self._spread(foretold)
        probabilities = self._samples.probabilities(spread, count)
        tasks = {
            task: {
                "documents": self._documents[task][places].tolist(),
                "probabilities": np.round(probabilities[task][places], 12).tolist(),
            }
            for task, places in self._draw(number, foretold, probabilities).items()
        }
        num_scored = sum(len(found["documents"]) for found in tasks.values())
        is_all = num_scored == sum(map(len, self._documents.values()))
        self.run.record(
            "sampled",
            phase=self.phase,
            set=number,
            candidates=names,
            full=[c.id for c in candidates if is_all or self._is_on_purpose(c)],
            num_told=self._num_told,
            count=count,
            tasks=tasks,
            predictors={
                name: {
                    "kind": chosen.kind,
                    "error": chosen.error,
                    "inflation": foretold.inflation[name],
                }
                for name, chosen in foretold.chosen.items()
            },
        )
        self.run.commit()

    def foretold_best(self, optimizer: Optimizer, number: int) -> Genome | None:
        """Have what is foretold to be the best point scored for an ask.

        Args:
            optimizer: Says where it looks.
            number: Of the ask.

        Returns:
            The point; None where the ask stays as it is: before as many are scored as a set
            has, where nothing tells points apart, and once standard errors were refuted.
        """
        if not isinstance(optimizer, Steered) or not optimizer.reach:
            return None
        if not (self.config.propose and self._samples.is_sum and self._num_scored >= self.set_size):
            return None
        group = len(self._state.sets)
        if self._is_refuted(group, self._num_told):
            return None
        chosen = self._chosen(group, self._num_told, False)

        def score(points: Sequence[Genome]) -> Floats:
            places = np.array([self._outcomes.point(point) for point in points])
            return self._samples.combined({n: each.predict(places) for n, each in chosen.items()})

        best = foretold_best(optimizer, score, self._rng(group, PROPOSING))
        return None if best is None else optimizer.replace(number, best)

    def advance(self, scored: Container[str]) -> list[Candidate]:
        """Candidates that are to be scored on more documents before their set is told.

        Args:
            scored: Ids of those under way whose documents are scored, or that failed.
        """
        return []

    def is_over(self, candidate: Candidate) -> bool:
        """Whether nothing more is to be scored of a candidate's set."""
        return True

    def estimate(self, candidate: Candidate) -> None:
        """Estimate the scores of a candidate whose sample is scored, and journal them."""
        made = self._estimates(candidate)
        found = self._values_of(candidate, made)
        residuals = {
            name: each.inflation for name, each in made.items() if each.inflation is not None
        }
        self.run.record(
            "estimated",
            candidate=candidate.id,
            estimates={name: asdict(each) for name, each in found.items()},
            residuals=residuals,
        )

    def _values_of(
        self, candidate: Candidate, made: Mapping[str, DocumentEstimate]
    ) -> dict[str, Approximation]:
        """Estimates by measure, and by objective that follows from them."""
        found = {
            name: Approximation(each.value, each.standard_error, each.num_scored, each.design_error)
            for name, each in made.items()
        }
        return found | self._objectives(candidate, found)

    def _estimates(self, candidate: Candidate) -> dict[str, DocumentEstimate]:
        """By measure, from the documents that were drawn for a candidate."""
        group, foretold, place = self._place(candidate)
        count = group.count_of(candidate.id)
        probabilities = self._samples.probabilities(self._spread(foretold), count)
        documents = group.documents_of(candidate.id)
        journaled = group.probabilities_of(candidate.id)
        found = {}
        for measure in self._measures:
            values, _ = self._outcomes.values(candidate, measure)
            ids = self._documents[measure.task]
            drawn = np.flatnonzero(np.isin(ids, documents[measure.task]))
            chances = probabilities[measure.task].copy()
            # What is drawn was drawn with these, whoever says others now.
            chances[drawn] = [journaled[measure.task][int(number)] for number in ids[drawn]]
            found[measure.name] = difference_estimate(
                foretold.predicted[measure.name][place],
                foretold.spread[measure.name],
                drawn,
                values[drawn],
                chances,
                foretold.keys[measure.task],
                foretold.inflation[measure.name],
            )
        return found

    def _place(self, candidate: Candidate) -> tuple[ComparisonSet, Foretold, int]:
        """A candidate's set, what was foretold of it, and its place there."""
        assert candidate.sampled is not None
        group = candidate.sampled.group
        foretold = self._foretold(group.number, group.num_told, group.candidates)
        return group, foretold, group.candidates.index(candidate.id)

    def _draw(
        self, number: int, foretold: Foretold, probabilities: Mapping[str, Floats]
    ) -> dict[str, NDArray[np.intp]]:
        """Places of the documents of a set's sample, by task."""
        keys = [foretold.keys[task] for task in probabilities]
        drawn = draw(list(probabilities.values()), keys, self._rng(number))
        return dict(zip(probabilities, drawn, strict=True))

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.run.setup.config.seed, 18, self.phase, *numbers))

    def ranking(self) -> list[str]:
        """The phase's candidates, the best first, by what is foretold of all their documents.

        What is known of a candidate's neighbors counts, also of one that was measured: the best of
        many scores is one that was lucky.
        """
        searched = [c for c in self.run.state.searched(self.phase) if c.scores("search")]
        with_genome = [c for c in searched if c.genome is not None]
        results = self.run.results
        if not with_genome or any(_is_plain(group) for group in self._state.sets):
            return results.ranked([c.id for c in searched], "search")
        chosen = self._outcomes.choose(
            len(self._state.sets), self._num_told, [group.num_told for group in self._state.sets]
        )
        points = np.array([self._outcomes.point(c.genome or ()) for c in with_genome])
        means = {n: each.predict(points).mean(axis=1) for n, each in chosen.items()}
        objectives = self.run.setup.objectives
        limits = [goal.limit for goal in results.goals("search")]
        preferences = np.array([o.preference for o in objectives])
        keys = {}
        for candidate in searched:
            losses = results.losses(candidate.id, "search")
            assert losses is not None
            over = float(violations(losses[0], limits)[0])
            keys[candidate.id] = over, float(preferences @ np.array(losses[0]))
        for row, candidate in enumerate(with_genome):
            scores = {
                name: Approximation(float(values[row]), 0.0, 1) for name, values in means.items()
            }
            try:
                scores |= self._objectives(candidate, scores)
            except EvomergeError:
                # What is foretold gives an objective no value: its own estimate counts.
                continue
            values = [o.loss(scores[o.name].value) for o in objectives]
            over = float(violations(values, limits)[0])
            keys[candidate.id] = over, float(preferences @ np.array(values))
        return sorted(keys, key=lambda name: keys[name])

    def _choose(self, number: int, num_told: int, plain: bool) -> dict[str, Chosen]:
        """What foretells, by measure, for a set."""
        before = [group.num_told for group in self._state.sets]
        return self._outcomes.choose(number, num_told, before, plain=plain)

    def _foretell(self, number: int, num_told: int, names: tuple[str, ...]) -> Foretold:
        """What is foretold of candidates by all that was told before some place."""
        plain = self._is_refuted(number, num_told)
        chosen = self._chosen(number, num_told, plain)
        genomes = [self.run.state.candidates[name].genome for name in names]
        points = np.array([self._outcomes.point(genome or ()) for genome in genomes])
        predicted = {name: each.predict(points) for name, each in chosen.items()}
        inflation, spread = {}, {}
        for measure in self._measures:
            name = measure.name
            inflation[name] = self._outcomes.inflation(name, num_told)
            low, high = METRIC_RANGES.get(measure.metric, (None, None))
            spread[name] = spread_of(predicted[name], low, high, chosen[name].error)
        keys = self._samples.keys(predicted, self._rng(number, 0))
        return Foretold(predicted, spread, inflation, chosen, keys)

    def _is_refuted(self, number: int, num_told: int) -> bool:
        """Whether the first tells say that standard errors are too small.

        From then on nothing is foretold: a sample is what it is by itself.

        Args:
            number: Of the set that is drawn, or was drawn.
            num_told: How many tells count.
        """
        if any(_is_plain(group) for group in self._state.sets[:number]):
            return True
        told = [c for c in self.run.state.searched(self.phase) if c.told is not None]
        told = sorted(told, key=lambda candidate: candidate.told or 0)[:num_told]
        found = calibration(self.run.results, told)
        # Once for each doubling: tests that are repeated all the time refute what is right.
        while found is not None and found.num_checked & (found.num_checked - 1):
            told.pop()
            found = calibration(self.run.results, told)
        return found is not None and found.is_refuted

    def _spread(self, foretold: Foretold) -> dict[str, Floats]:
        return self._samples.spread(foretold.spread, foretold.inflation)

    def _count(self, number: int, foretold: Foretold) -> int:
        """Documents of a set's sample, over all tasks that can be sampled."""
        return self._sizes.count(number, foretold)

    def _is_on_purpose(self, candidate: Candidate) -> bool:
        """Whether a candidate is scored in full, so that estimates are checked."""
        if not self.config.calibrate or candidate.ask is None:
            return False
        every = max(1, round(1.0 / self.config.calibrate))
        # One of so many, at no fixed place: sets have their likeliest candidate at one.
        row, place = divmod(candidate.ask, every)
        return place == self._rng(row, CALIBRATING).integers(every)

    def _objectives(
        self, candidate: Candidate, known: Mapping[str, Approximation]
    ) -> dict[str, Approximation]:
        """Objectives that are no single measure, from estimates of what they are made of."""
        found = {}
        setup = self.run.setup
        for objective in setup.objectives:
            if objective.name in known:
                continue
            kind = setup.tasks.kinds[objective.name]
            with told_as(CandidateError, f"objective {objective.name!r} has no value"):
                made = kind.measure(self.run.recipe(candidate), setup.pool, _Means(self.run, known))
            own = [(term.coefficient, known[term.measure]) for term in made.terms if not term.model]
            found[objective.name] = Approximation(
                made.value,
                float(np.hypot(made.standard_error, _joined(own, "standard_error"))),
                sum(each.num_documents for _, each in own),
                _joined(own, "design_error"),
            )
        return found


class _Means:
    """The `Rows` of a candidate by estimates of its means."""

    def __init__(self, run: Run, known: Mapping[str, Any]) -> None:
        self._run = run
        self._known = known

    def values(self, measure: Measure) -> Mapping[int, float]:
        """See `Rows`."""
        raise NotImplementedError

    def mean(self, measure: Measure) -> float:
        """See `Rows`."""
        return float(self._known[measure.name].value)

    def count(self, measure: Measure) -> int:
        """See `Rows`."""
        return int(self._known[measure.name].num_documents)

    def of(self, model: str) -> _Means:
        """See `Rows`."""
        return _Means(self._run, scored_model(self._run, model, "search").scores("search") or {})


def _is_plain(group: ComparisonSet) -> bool:
    """Whether nothing was foretold for a set."""
    return any(found["kind"] == PLAIN.kind for found in group.predictors.values())


def _joined(parts: Sequence[tuple[float, Approximation]], error: str) -> float:
    return float(np.sqrt(sum((c * getattr(each, error)) ** 2 for c, each in parts)))
