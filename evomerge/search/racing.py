"""Races: rounds of documents for candidates whose place among their like is not decided.

What is decided follows from completed rounds of a set alone, whoever was scored first.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import EvomergeError
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.config import LEAST_DOCUMENTS, RaceConfig
from evomerge.fidelity.estimate import DocumentEstimate, covariance_of
from evomerge.fidelity.races import NUM_DRAWS, Prize, chances, next_count
from evomerge.fidelity.sample import drawn_by, permanent_numbers
from evomerge.journal import Candidate, ComparisonSet
from evomerge.objectives import GroupMetric
from evomerge.optimize.fronts import non_dominated, violations
from evomerge.search.assistance import Assistance
from evomerge.search.foretold import Foretold
from evomerge.search.whole import measure_whole

FIRST_SHARE = 0.05
"""Of all documents that the first round has by itself."""

OVER = 1e6
"""Loss of a draw that is over a limit by next to nothing."""


class Race(Assistance):
    """See `Assistance`: samples that grow for those whose place is not decided."""

    config: RaceConfig

    @cached_property
    def prize(self) -> Prize:
        """What candidates race for."""
        if self.run.setup.config.all_phases[self.phase].optimizer.finds_front:
            return "front"
        return "half" if self.has_generations else "best"

    def is_over(self, candidate: Candidate) -> bool:
        """See `Assistance`."""
        return candidate.sampled is None or self._is_decided(candidate.sampled.group)

    def advance(self, scored: Container[str]) -> list[Candidate]:
        """See `Assistance`."""
        group = self._first_open()
        if group is None or self._is_decided(group):
            return []
        going = self._going(group)
        if any(c.id not in scored or c.told is not None for c in going):
            return []
        going = [c for c in going if "search" not in c.failures]
        if group.rounds and group.rounds[-1].count >= self._size:
            # All their documents are scored by now.
            for candidate in going:
                if not candidate.is_scored("search"):
                    measure_whole(self.run, candidate)
            self._record(group, (), self._size, {})
            return []
        count = group.rounds[-1].count if group.rounds else group.count
        self._record(group, *self._decide(group, going, count))
        return self._going(group) if group.rounds[-1].candidates else []

    def _first_open(self) -> ComparisonSet | None:
        """The first set that is not told: those behind it have their first round meanwhile."""
        known, found = self.run.state.candidates, None
        for group in reversed(self._state.sets):
            if all(known[name].told is not None for name in group.candidates):
                break
            found = group
        return found

    def _is_decided(self, group: ComparisonSet) -> bool:
        is_whole = set(group.candidates) <= group.full
        return is_whole or bool(group.rounds and not group.rounds[-1].candidates)

    def _going(self, group: ComparisonSet) -> list[Candidate]:
        names = group.rounds[-1].candidates if group.rounds else group.candidates
        return [self.run.state.candidates[name] for name in names]

    def _decide(
        self, group: ComparisonSet, going: Sequence[Candidate], count: int
    ) -> tuple[tuple[str, ...], int, dict[str, float]]:
        """Who goes on, to how many documents, and each one's chance of the prize."""
        if not going:
            return (), count, {}
        safe = self._safe(group)
        places = (len(group.candidates) + 1) // 2 - len(safe)
        rng = self._rng(group.number, 1 + len(group.rounds))
        losses, rivals = self._draws(group, going, rng), [self._rivals(rng)]
        if self.prize == "front":
            rivals += [self._draws(group, [candidate], rng) for candidate in safe]
        found = chances(self.prize, losses, np.concatenate(rivals, axis=1), places)
        known = dict(zip((c.id for c in going), np.round(found, 6).tolist(), strict=True))
        limit = self.config.limit
        is_open = {name: limit <= chance <= 1.0 - limit for name, chance in known.items()}
        if not any(is_open.values()):
            return (), count, known
        stay = [
            name
            for name in known
            if is_open[name] or (self.prize == "best" and known[name] > limit)
        ]
        return tuple(stay), next_count(count, self._size), known

    def _safe(self, group: ComparisonSet) -> list[Candidate]:
        """Those whose place was decided well in an earlier round."""
        names = [
            name
            for earlier in group.rounds
            for name, chance in earlier.chances.items()
            if chance > 1.0 - self.config.limit and name not in earlier.candidates
        ]
        return [self.run.state.candidates[name] for name in names]

    def _draws(
        self, group: ComparisonSet, going: Sequence[Candidate], rng: np.random.Generator
    ) -> Floats:
        """Losses that candidates of a set may have on all documents, shape [draws, m, k]."""
        made = [self._estimates(candidate) for candidate in going]
        known: dict[str, Floats] = {}
        for task in self._documents:
            known |= self._draws_of(task, group, going, made, rng)
        columns = []
        for objective in self.run.setup.objectives:
            kind = self.run.setup.tasks.kinds[objective.name]
            sign = objective.loss(1.0)
            if kind.single is not None:
                values = known[kind.single.name]
            elif isinstance(kind, GroupMetric):
                pairs = zip(kind.measures, kind.weights, strict=True)
                values = np.asarray(sum(weight * known[m.name] for m, weight in pairs))
            else:
                values = self._values_drawn(objective.name, OVER * sign, going, made, rng)
            columns.append(sign * values)
        return self._told_as(np.stack(columns, axis=-1))

    def _values_drawn(
        self,
        objective: str,
        worst: float,
        going: Sequence[Candidate],
        made: Sequence[Mapping[str, DocumentEstimate]],
        rng: np.random.Generator,
    ) -> Floats:
        """Values of an objective that is no mean, shape [draws, m]; the worst where it has none."""
        values, errors = np.full(len(going), worst), np.zeros(len(going))
        for place, (candidate, each) in enumerate(zip(going, made, strict=True)):
            with suppress(EvomergeError):
                found = self._values_of(candidate, each)[objective]
                values[place], errors[place] = found.value, found.design_error
        return np.asarray(values + errors * rng.standard_normal((NUM_DRAWS, len(going))))

    def _draws_of(
        self,
        task: str,
        group: ComparisonSet,
        going: Sequence[Candidate],
        made: Sequence[Mapping[str, DocumentEstimate]],
        rng: np.random.Generator,
    ) -> dict[str, Floats]:
        """Values of a task's measures that candidates may have on all documents, [draws, m] each.

        Measures of one task vary together, as candidates do.
        """
        measures = [measure for measure in self._measures if measure.task == task]
        foretold = self._foretold(group.number, group.num_told, group.candidates)
        places = [group.candidates.index(candidate.id) for candidate in going]
        chance = group.probabilities_of(going[0].id)[task]
        ids = self._documents[task]
        drawn = np.flatnonzero(np.isin(ids, list(chance)))
        residuals, means, errors = [], [], []
        for measure in measures:
            values = np.array([self._outcomes.values(each, measure)[0] for each in going])
            residuals.append((values - foretold.predicted[measure.name][places])[:, drawn])
            means += [each[measure.name].value for each in made]
            errors += [each[measure.name].design_error for each in made]
        covariance = covariance_of(
            np.concatenate(residuals),
            np.array([chance[int(number)] for number in ids[drawn]]),
            foretold.keys[task][drawn],
            np.array(errors),
        )
        spread = rng.standard_normal((NUM_DRAWS, len(means))) @ _root(covariance).T
        parts = np.split(np.array(means) + spread, len(measures), axis=1)
        return {measure.name: part for measure, part in zip(measures, parts, strict=True)}

    def _told_as(self, losses: Floats) -> Floats:
        """Draws of losses as what is raced for, worse where they are over a limit.

        Args:
            losses: Shape [..., objectives].
        """
        goals = self.run.results.goals("search")
        over = violations(losses.reshape(-1, len(goals)), [goal.limit for goal in goals])
        worse = np.where(over > 0.0, OVER * (1.0 + over), 0.0).reshape(losses.shape[:-1])[..., None]
        if self.prize == "front":
            return np.asarray(losses + worse)
        preferences = np.array([o.preference for o in self.run.setup.objectives])
        return np.asarray(losses @ preferences[:, None] / preferences.sum() + worse)

    def _rivals(self, rng: np.random.Generator) -> Floats:
        """Draws of losses of those that the candidates have to beat, shape [draws, r, k]."""
        results = self.run.results
        told = [c.id for c in self.run.state.searched(self.phase) if c.told is not None]
        if self.prize == "half":
            names: list[str] = []
        elif self.prize == "best":
            names = results.ranked(told, "search", cautious=True)[:1]
        else:
            scored = [name for name in told if results.losses(name, "search") is not None]
            found = [(results.losses(name, "search") or ([], []))[0] for name in scored]
            is_best = non_dominated(found) if found else ()
            names = [name for name, best in zip(scored, is_best, strict=True) if best]
        columns = []
        for name in names:
            losses = results.losses(name, "search")
            if losses is None:
                continue
            scores = self.run.state.candidates[name].scores("search") or {}
            errors = np.array([scores[o.name].design_error for o in self.run.setup.objectives])
            columns.append(losses[0] + errors * rng.standard_normal((NUM_DRAWS, len(errors))))
        width = len(self.run.setup.objectives)
        drawn = np.stack(columns, axis=1) if columns else np.zeros((NUM_DRAWS, 0, width))
        return self._told_as(drawn)

    def _record(
        self,
        group: ComparisonSet,
        going: Sequence[str],
        count: int,
        known: Mapping[str, float],
    ) -> None:
        """Journal a round that begins, or that the race is over."""
        tasks = {}
        foretold = self._foretold(group.number, group.num_told, group.candidates)
        spread = self._spread(foretold)
        drawn: dict[str, NDArray[np.intp]] = {}
        earlier = group.documents_of(going[0]) if going else {}
        while going:
            probabilities = self._samples.probabilities(spread, count)
            drawn = self._draw(group.number, foretold, probabilities)
            found = {task: self._documents[task][places].tolist() for task, places in drawn.items()}
            if count >= self._size:
                break
            if not all(set(numbers) <= set(found[task]) for task, numbers in earlier.items()):
                # A release before this one drew its first documents otherwise.
                count = self._size
            elif sum(map(len, drawn.values())) > group.num_documents_of(going[0]):
                break
            else:
                # The least of each of many tasks is more than a round asks for.
                count = next_count(count, self._size)
        for task in drawn:
            new = [number for number in found[task] if number not in set(earlier[task])]
            chances = np.round(probabilities[task], 12).tolist()
            chance = dict(zip(self._documents[task].tolist(), chances, strict=True))
            own = [chance[number] for number in [*earlier[task], *new]]
            tasks[task] = {"documents": new, "probabilities": own}
        self.run.record(
            "raced",
            phase=self.phase,
            set=group.number,
            candidates=list(going),
            count=count,
            tasks=tasks,
            chances=dict(known),
        )
        self.run.commit()

    def _draw(
        self, number: int, foretold: Foretold, probabilities: Mapping[str, Floats]
    ) -> dict[str, NDArray[np.intp]]:
        """See `Assistance`; a later round draws what an earlier one drew, and more."""
        keys = [foretold.keys[task] for task in probabilities]
        numbers = permanent_numbers(keys, self._rng(number))
        by_task = dict(zip(probabilities, numbers, strict=True))
        drawn = {task: drawn_by(own, probabilities[task]) for task, own in by_task.items()}
        if not any(map(len, drawn.values())):
            # A candidate is scored on one document at least.
            task = next(iter(by_task))
            drawn[task] = np.array([int(np.argmin(by_task[task] / probabilities[task]))])
        return drawn

    def _count(self, number: int, foretold: Foretold) -> int:
        """See `Assistance`: documents of the first round."""
        if self.config.documents != "automatic":
            return self.config.documents
        return max(LEAST_DOCUMENTS * len(self._documents), int(np.ceil(FIRST_SHARE * self._size)))

    @cached_property
    def _size(self) -> int:
        """Documents of all tasks that can be sampled."""
        free = [ids for task, ids in self._documents.items() if task not in self._samples.whole]
        return sum(map(len, free))


def _root(covariance: Floats) -> Floats:
    """A matrix whose product with its transpose is the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
