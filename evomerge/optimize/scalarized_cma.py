"""CMA-ES on several weighted sums of the losses: a direct search for a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.optimize.base import BaseOptimizer
from evomerge.optimize.cma import Cma, CmaConfig
from evomerge.optimize.fronts import repelled
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Ask,
    Asked,
    Done,
    Optimizer,
    OptimizerConfig,
    Outcome,
    Point,
    Told,
    Wait,
)


class ScalarizedCmaConfig(OptimizerConfig):
    """CMA-ES from several preferences that are spread evenly over the simplex, in turn.

    Losses whose range is known are weighted as shares of it.

    Attributes:
        kind: The optimizer.
        directions: How many preferences.
        cma: Settings of each.
    """

    finds_front: ClassVar[bool] = True

    kind: Literal["scalarized_cma"] = "scalarized_cma"
    directions: int = Field(default=5, ge=2)
    cma: CmaConfig = CmaConfig()


class ScalarizedCma(BaseOptimizer[ScalarizedCmaConfig, tuple[Optimizer, Ask]]):
    """Ask n is that of the n-th optimizer, modulo their number; a proposal is both."""

    def _start(self) -> None:
        self.optimizers: list[Optimizer] = []
        for number, preferences in enumerate(spread(len(self.goals), self.config.directions)):
            weighted = [
                replace(goal, preference=float(share) / goal.unit)
                for goal, share in zip(self.goals, preferences, strict=True)
            ]
            # Seeds that no two runs of neighboring seeds share.
            own = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
            self.optimizers.append(Cma(self.config.cma, self.box, weighted, own))
        self.max_outstanding = sum(one.max_outstanding for one in self.optimizers)

    def _propose(self) -> tuple[Optimizer, Ask] | Wait | Done:
        optimizer = self.optimizers[self._num_asked % len(self.optimizers)]
        answer = optimizer.ask()
        return (optimizer, answer) if isinstance(answer, Ask) else answer

    def _observe(self, proposal: tuple[Optimizer, Ask], outcome: Outcome) -> None:
        optimizer, ask = proposal
        optimizer.tell(ask.number, outcome)

    def _observe_foreign(self, point: Point, outcome: Outcome) -> None:
        for optimizer in self.optimizers:
            optimizer.tell(point, outcome)

    def _genome(self, proposal: tuple[Optimizer, Ask]) -> Point:
        return proposal[1].genome

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """See `Optimizer`: each from its own part of the record."""
        parts: list[list[Asked | Told]] = [[] for _ in self.optimizers]
        for event in events:
            if event.number is None:
                for part in parts:
                    part.append(event)
                continue
            number, place = divmod(event.number, len(parts))
            parts[place].append(replace(event, number=number))
            if isinstance(event, Asked):
                self._outstanding[event.number] = self.optimizers[place], Ask(number, event.genome)
                self._num_asked = event.number + 1
            else:
                self._take(event.number)
        differences = [one.restore(part) for one, part in zip(self.optimizers, parts, strict=True)]
        return next((difference for difference in differences if difference is not None), None)


def spread(num_objectives: int, count: int) -> Any:
    """Preferences of sum one, shape [count, m]: even over the simplex, a little of everything."""
    if num_objectives == 1:
        return np.ones((1, 1))
    if num_objectives == 2:
        first = np.linspace(0.0, 1.0, count)
        directions = np.stack([first, 1.0 - first], axis=1)
    else:
        directions = repelled(num_objectives, count)
    # No loss at all may be ignored: among equals the others decide.
    return (directions + 0.01) / (1.0 + 0.01 * num_objectives)


OPTIMIZERS.add(ScalarizedCmaConfig, ScalarizedCma)
