"""nevergrad's differential evolution on several losses at once: a front without a surrogate."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evomerge.optimize.any_nevergrad import MAX_OUTSTANDING
from evomerge.optimize.fronts import violations
from evomerge.optimize.nevergrad_optimizer import OVER_LIMIT, WORST, NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, Goal, OptimizerConfig, Outcome, Point, Scored

Floats = NDArray[Any]

NUM_FIRST = 8
"""Tells that the reference is set from where goals do not say it."""


class NevergradFrontConfig(OptimizerConfig):
    """One of nevergrad's optimizers that look for a front.

    Attributes:
        kind: The optimizer.
        algorithm: Its name there.
        max_outstanding: Points asked and not yet told, at most.
    """

    finds_front: ClassVar[bool] = True

    kind: Literal["nevergrad_front"] = "nevergrad_front"
    algorithm: Literal["DE", "TwoPointsDE"] = "DE"
    max_outstanding: int = Field(default=MAX_OUTSTANDING, ge=1)


class NevergradFront(NevergradOptimizer[NevergradFrontConfig]):
    """All losses, each by itself, below a reference.

    The reference of a loss is the goal's, else the greatest value that it can have, else the worst
    of the first `NUM_FIRST` tells and a tenth of their range beyond; nevergrad is told these once
    there are as many. A point over a limit is told as worse than any within it on every loss, the
    more so the further it is over; a failed point as worse than the worst so far.
    """

    settled = True

    def _build(self, parametrization: Any) -> Any:
        import nevergrad as ng

        return ng.optimizers.registry[self.config.algorithm](parametrization, num_workers=1)

    def _start(self) -> None:
        super()._start()
        self.max_outstanding = self.config.max_outstanding
        self._worst_losses: Floats | None = None
        self._first_losses: list[tuple[float, ...]] = []
        self._first_tells: list[tuple[Any, Any]] = []
        # nevergrad takes a single loss for a number, and wants no reference then.
        self._has_reference = len(self.goals) == 1
        if not self._has_reference and all(_bound(goal) is not None for goal in self.goals):
            self._tell_reference()

    def _loss(self, outcome: Outcome) -> Floats:
        if not isinstance(outcome, Scored):
            worst = self._worst_losses
            return np.full(len(self.goals), WORST) if worst is None else worst + 1.0
        if not self._has_reference:
            self._first_losses.append(outcome.losses)
        losses = np.array(outcome.losses)
        over = float(violations(losses, [goal.limit for goal in self.goals])[0])
        if over > 0.0:
            losses += OVER_LIMIT * (1.0 + over)
        worst = losses if self._worst_losses is None else self._worst_losses
        self._worst_losses = np.maximum(worst, losses)
        return losses

    def _inner_tell(self, candidate: Any, loss: Any) -> None:
        if self._has_reference:
            super()._inner_tell(candidate, loss)
            return
        # The reference must be told before anything else.
        self._first_tells.append((candidate, loss))
        if len(self._first_tells) == NUM_FIRST:
            self._tell_reference()
            for first in self._first_tells:
                super()._inner_tell(*first)

    def _tell_reference(self) -> None:
        import nevergrad as ng

        first = np.array(self._first_losses).reshape(-1, len(self.goals))
        if len(first):
            worst = first.max(axis=0)
            beyond = worst + 0.1 * (worst - first.min(axis=0))
        else:
            beyond = np.full(len(self.goals), WORST)
        bounds = [_bound(goal) for goal in self.goals]
        reference = [
            float(seen) if bound is None else bound
            for bound, seen in zip(bounds, beyond, strict=True)
        ]
        self._inner.tell(ng.p.MultiobjectiveReference(), reference)
        self._has_reference = True

    def _in_place_of(self, asked: Any, genome: Point) -> Any:
        candidate = super()._in_place_of(asked, genome)
        # Differential evolution compares it with the parent that this names.
        candidate.heritage["lineage"] = asked.heritage["lineage"]
        return candidate


def _bound(goal: Goal) -> float | None:
    return goal.high if goal.reference is None else goal.reference


OPTIMIZERS.add(NevergradFrontConfig, NevergradFront)
