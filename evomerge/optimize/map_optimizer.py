"""MAP: fronts found on surrogates and measured (Li et al., ICLR 2025).

A design is measured; surrogates are fitted to every loss; the front is looked for on them by an
evolutionary algorithm, inside the box; the points of it that add most to the measured front are
measured next; and so on. Every ask depends only on the seed and on what has been asked and told, so
that a search goes on from its record by taking it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.errors import InputError
from evomerge.optimize.base import BaseOptimizer
from evomerge.optimize.designs import augment, make_design, space_filling
from evomerge.optimize.fronts import hypervolume, non_dominated, violations
from evomerge.optimize.map_config import BayesianMapConfig, MapConfig, SurrogateSearchConfig
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Done,
    Failed,
    Outcome,
    Point,
    Scored,
    Wait,
)
from evomerge.optimize.quadratic import num_coefficients, rank
from evomerge.optimize.surrogate import Bools, Floats, Surrogate, to_units
from evomerge.optimize.surrogate_front import Function, front_of, values
from evomerge.optimize.surrogates import fit_surrogates

NUM_SAMPLES = 32
"""Functions drawn from the posterior for an expected gain."""

NEAREST = 1e-3
"""Points nearer to each other than this share of the box's range are one point."""

GROWTH_WINDOW = 4
"""Points behind the design over which the front must have grown."""

NOTHING_NEW = "every point of the surrogates' front is measured"


@dataclass(frozen=True)
class Observations:
    """What was scored, in the order of the tells.

    Attributes:
        points: Shape [n, d], in units of the box.
        losses: Shape [n, m].
        standard_errors: Shape [n, m].
        is_estimate: Which are estimated from some of the documents, shape [n, m].
    """

    points: Floats
    losses: Floats
    standard_errors: Floats
    is_estimate: Bools


class MapOptimizer(BaseOptimizer[SurrogateSearchConfig, Point]):
    """See `Optimizer`.

    Raises:
        InputError: The design does not determine the surrogates.
    """

    follows_record = True

    def _start(self) -> None:
        box = self.box
        self.max_outstanding = self.config.max_outstanding
        self._limits = np.array([np.inf if g.limit is None else g.limit for g in self.goals])
        self._low = np.asarray(box.low)
        self._high = np.asarray(box.high)
        landmarks = [self._to_units(point) for point in dict.fromkeys([*box.landmarks, box.start])]
        design = make_design(self.config.design, np.array(landmarks), len(box.low), self.seed)
        # Two points of the design can be one candidate where numbers are whole.
        self.design = list(dict.fromkeys(self._to_point(row) for row in design))
        needed = num_coefficients(len(box.low))
        found = rank(np.array([self._to_units(point) for point in self.design]))
        if found < needed:
            raise InputError(
                f"optimizer: its design determines {found} of the {needed} coefficients of a "
                f"quadratic once numbers are whole (of two values the square says nothing); use "
                "`kind: nsga2` or `kind: nevergrad_front`"
            )
        self.min_evaluations = len(self.design)
        self._told: list[tuple[Point, Outcome]] = []
        self._fitted: tuple[int, list[Surrogate]] | None = None
        self._candidates: tuple[int, Floats] | None = None

    def _propose(self) -> Point | Wait | Done:
        taken = self._taken()
        first = next((point for point in self.design if point not in taken), None)
        return self._next() if first is None else first

    def _observe(self, proposal: Point, outcome: Outcome) -> None:
        self._told.append((proposal, outcome))

    def describe(self) -> str:
        """See `Optimizer`."""
        count = num_coefficients(len(self._low))
        return (
            f"a design of {len(self.design)} points (a quadratic has {count} coefficients for each "
            "objective), then points of the front that is expected"
        )

    @property
    def measured(self) -> Observations:
        """What was scored so far."""
        scored = [(point, told) for point, told in self._told if isinstance(told, Scored)]
        count = len(self.goals)
        return Observations(
            np.array([self._to_units(point) for point, _ in scored]).reshape(-1, len(self._low)),
            np.array([told.losses for _, told in scored]).reshape(-1, count),
            np.array([told.standard_errors for _, told in scored]).reshape(-1, count),
            np.array([told.is_estimate for _, told in scored], dtype=bool).reshape(-1, count),
        )

    @property
    def surrogates(self) -> list[Surrogate]:
        """One for each loss, fitted to what was scored so far."""
        if self._fitted is None or self._fitted[0] != len(self._told):
            measured = self.measured
            fitted = fit_surrogates(
                self.config.surrogate,
                measured.points,
                measured.losses,
                measured.standard_errors,
                self.goals,
                measured.is_estimate,
            )
            self._fitted = len(self._told), fitted
        return self._fitted[1]

    def _next(self) -> Point | Wait | Done:
        """The next point behind the design."""
        measured = self.measured
        if rank(measured.points) < num_coefficients(len(self._low)):
            # Some points failed: others take their place.
            return self._replacement()
        candidates = self._new(self._front())
        if not self._is_allowed_somewhere(candidates):
            return self._towards_limits(candidates)
        if not len(candidates):
            return Done(NOTHING_NEW)
        gains, whole = self._gains(candidates)
        best = int(np.argmax(gains))
        if gains[best] <= self.config.tolerance * whole and self._has_stopped_growing(whole):
            return Done(
                f"the front's hypervolume grew by less than {self.config.tolerance:g} of itself"
            )
        return self._to_point(candidates[best])

    def _replacement(self) -> Point | Wait | Done:
        failed = {point for point, told in self._told if isinstance(told, Failed)}
        around = [self._to_units(point) for point in self._taken() if point not in failed]
        pool = self._new(space_filling(len(self._low), 256, self.seed + self._num_asked + 1))
        if rank(np.array(around)) >= num_coefficients(len(self._low)) and self._outstanding:
            return Wait()
        if not len(pool):
            return Done(NOTHING_NEW)
        known = np.array(around).reshape(-1, len(self._low))
        return self._to_point(augment(known, pool, 1)[-1])

    def _is_allowed_somewhere(self, candidates: Floats) -> bool:
        """Whether a measured or an expected point keeps every limit."""
        if len(self._within_limits(self._posterior_means())):
            return True
        expected = values([surrogate.mean for surrogate in self.surrogates], candidates)
        return len(self._within_limits(expected)) > 0

    def _towards_limits(self, candidates: Floats) -> Point | Wait | Done:
        """Where a function drawn from the posterior is least over the limits."""
        rng = np.random.default_rng((self.seed, len(self._told), self._num_asked))
        filling = space_filling(len(self._low), 256, int(rng.integers(1 << 31)))
        pool = np.concatenate([candidates, self._new(self._settled(filling))])
        if not len(pool):
            return Done(NOTHING_NEW)
        drawn = values([surrogate.sample(rng) for surrogate in self.surrogates], pool)
        over = violations(drawn, [goal.limit for goal in self.goals])
        return self._to_point(pool[int(np.argmin(over))])

    def _front(self) -> Floats:
        """Points of the surrogates' front, shape [k, d]."""
        count = len(self._told)
        if self._candidates is None or self._candidates[0] != count:
            surrogates = self.surrogates
            functions = [surrogate.mean for surrogate in surrogates]
            uncertain = self.config.acquisition != "mean" or not all(
                surrogate.quality.trusted for surrogate in surrogates
            )
            rng = np.random.default_rng((self.seed, count))
            if uncertain:
                functions = [surrogate.sample(rng) for surrogate in surrogates]
            limits = [goal.limit for goal in self.goals]
            start = self.measured.points
            found = front_of(functions, limits, len(self._low), int(rng.integers(1 << 31)), start)
            self._candidates = count, self._settled(found)
        return self._candidates[1]

    def _posterior_means(self) -> Floats:
        return np.stack([surrogate.posterior()[0] for surrogate in self.surrogates], axis=1)

    def _gains(self, candidates: Floats) -> tuple[Floats, float]:
        """What each candidate adds to the measured front's hypervolume, and that hypervolume."""
        surrogates = self.surrogates
        means = self._within_limits(self._posterior_means())
        reference = self._reference()
        pending = np.array([self._to_units(point) for point in self._outstanding.values()])
        expected = [surrogate.mean for surrogate in surrogates]
        whole = hypervolume(means, reference) if len(means) else 0.0
        if self.config.acquisition != "ehvi":
            return self._added(expected, means, pending, candidates, reference), whole
        rng = np.random.default_rng((self.seed, len(self._told), 1))
        total = np.zeros(len(candidates))
        for _ in range(NUM_SAMPLES):
            drawn = [surrogate.sample(rng) for surrogate in surrogates]
            total += self._added(drawn, means, pending, candidates, reference)
        return total / NUM_SAMPLES, whole

    def _added(
        self,
        functions: Sequence[Function],
        means: Floats,
        pending: Floats,
        candidates: Floats,
        reference: Floats,
    ) -> Floats:
        if len(pending):
            assumed = self._within_limits(values(functions, pending))
            means = np.concatenate([means, assumed])
        front = means[non_dominated(means)]
        before = hypervolume(front, reference)
        losses = values(functions, candidates)
        allowed = np.all(losses <= self._limits, axis=1)
        return np.array(
            [
                hypervolume(np.concatenate([front, loss[None]]), reference) - before if ok else 0.0
                for loss, ok in zip(losses, allowed, strict=True)
            ]
        )

    def _has_stopped_growing(self, whole: float) -> bool:
        """Whether the last points behind the design have added next to nothing."""
        design = set(self.design)
        scored = [point for point, told in self._told if isinstance(told, Scored)]
        behind = [index for index, point in enumerate(scored) if point not in design]
        if len(behind) < GROWTH_WINDOW:
            return False
        means = self._posterior_means()
        before = np.delete(means, behind[-GROWTH_WINDOW:], axis=0)
        then = hypervolume(self._within_limits(before), self._reference())
        return whole - then <= self.config.tolerance * whole

    def _reference(self) -> Floats:
        """As stated, else the worst of a loss on the surrogates' front, and a tenth beyond."""
        expected = values([surrogate.mean for surrogate in self.surrogates], self._front())
        low, high = expected.min(axis=0), expected.max(axis=0)
        span = np.where(high > low, high - low, np.maximum(1e-9, np.abs(high)))
        own = high + 0.1 * span
        stated = [np.nan if g.reference is None else g.reference for g in self.goals]
        reference = np.where(np.isnan(stated), own, stated)
        # Where nothing is expected to be better than what is stated, there is nothing to gain.
        return reference if (expected < reference).all(axis=1).any() else own

    def _within_limits(self, losses: Floats) -> Floats:
        return np.asarray(losses[(losses <= self._limits).all(axis=1)])

    def _new(self, points: Floats) -> Floats:
        """Points that are not near to one that was asked."""
        taken = np.array([self._to_units(point) for point in self._taken()])
        if not len(taken) or not len(points):
            return points.reshape(-1, len(self._low))
        apart = np.abs(points[:, None, :] - taken[None, :, :]).max(axis=2).min(axis=1)
        return np.asarray(points[apart > 2.0 * NEAREST])

    def _taken(self) -> dict[Point, None]:
        """Every point that was told or is outstanding, in order."""
        return dict.fromkeys([*(point for point, _ in self._told), *self._outstanding.values()])

    def _settled(self, points: Floats) -> Floats:
        settled = dict.fromkeys(self._to_point(row) for row in points)
        return np.array([self._to_units(point) for point in settled])

    def _to_units(self, point: Point) -> Floats:
        return to_units(np.asarray(point), self._low, self._high)

    def _to_point(self, units: Floats) -> Point:
        share = (np.clip(units, -1.0, 1.0) + 1.0) / 2.0
        inside = self._low + share * (self._high - self._low)
        bounds = zip(inside, self.box.low, self.box.high, strict=True)
        return self.box.settle(tuple(min(max(float(x), low), high) for x, low, high in bounds))


OPTIMIZERS.add(MapConfig, MapOptimizer)
OPTIMIZERS.add(BayesianMapConfig, MapOptimizer)
