"""CMA-ES on several weighted sums of the losses: a direct search for a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.optimize.cma import CmaConfig, make_cma
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Done,
    Goal,
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


class ScalarizedCma:
    """See `Optimizer`. Ask n is that of the n-th optimizer, modulo their number.

    Args:
        config: Its settings.
        box: The domain.
        goals: The losses.
        seed: Of every random number.
    """

    def __init__(
        self, config: ScalarizedCmaConfig, box: Box, goals: Sequence[Goal], seed: int
    ) -> None:
        self.optimizers: list[Optimizer] = []
        for number, preferences in enumerate(spread(len(goals), config.directions)):
            weighted = [
                replace(goal, preference=float(share) / goal.unit)
                for goal, share in zip(goals, preferences, strict=True)
            ]
            # Seeds that no two runs of neighboring seeds share.
            own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
            self.optimizers.append(make_cma(config.cma, box, weighted, own))
        self.max_outstanding = sum(one.max_outstanding for one in self.optimizers)
        self._num_asked = 0

    def ask(self) -> Ask | Wait | Done:
        """See `Optimizer`."""
        optimizer, _ = self._owner(self._num_asked)
        answer = optimizer.ask()
        if not isinstance(answer, Ask):
            return answer
        self._num_asked += 1
        return Ask(self._num_asked - 1, answer.genome)

    def tell(self, point: int | Point, outcome: Outcome) -> None:
        """See `Optimizer`."""
        if isinstance(point, int):
            if not 0 <= point < self._num_asked:
                raise ValueError(f"ask {point} is not outstanding")
            optimizer, number = self._owner(point)
            try:
                optimizer.tell(number, outcome)
            except ValueError:
                raise ValueError(f"ask {point} is not outstanding") from None
        else:
            for optimizer in self.optimizers:
                optimizer.tell(point, outcome)

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
                self._num_asked = event.number + 1
        differences = [one.restore(part) for one, part in zip(self.optimizers, parts, strict=True)]
        return next((difference for difference in differences if difference is not None), None)

    def _owner(self, number: int) -> tuple[Optimizer, int]:
        """Whose ask it is, and its number there."""
        inner, place = divmod(number, len(self.optimizers))
        return self.optimizers[place], inner


def spread(num_objectives: int, count: int) -> Any:
    """Preferences of sum one, shape [count, m]: even over the simplex, a little of everything.

    The least energy of points that repel each other (Blank et al. 2021), by pymoo.
    """
    if num_objectives == 1:
        return np.ones((1, 1))
    if num_objectives == 2:
        first = np.linspace(0.0, 1.0, count)
        directions = np.stack([first, 1.0 - first], axis=1)
    else:
        from pymoo.util.ref_dirs import get_reference_directions

        directions = get_reference_directions("energy", num_objectives, count, seed=1)
    # No loss at all may be ignored: among equals the others decide.
    return (directions + 0.01) / (1.0 + 0.01 * num_objectives)


def make_scalarized_cma(
    config: ScalarizedCmaConfig, box: Box, goals: Sequence[Goal], seed: int
) -> ScalarizedCma:
    """Build the optimizer."""
    return ScalarizedCma(config, box, goals, seed)


OPTIMIZERS.add(ScalarizedCmaConfig, make_scalarized_cma)
