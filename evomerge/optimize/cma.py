"""CMA-ES through nevergrad, with the source's settings (arXiv 2403.13187) as defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, Box, Goal, OptimizerConfig, Point
from evomerge.optimize.surrogate import Floats

DIAGONAL_ABOVE = 1000
"""Dimensions beyond which the full covariance matrix costs the driver more than it brings."""


class CmaConfig(OptimizerConfig):
    """CMA-ES (Hansen and Ostermeier 2001).

    A choice of two is a real number and a threshold in the middle of its range.

    Attributes:
        kind: The optimizer.
        preset: "paper": generations of 128, as the source searched layer orders (100 of them:
            12,800 candidates); what is said beside it counts instead.
        sigma: Initial standard deviation as a share of each dimension's range.
        popsize: Points of a generation; by default 4 + floor(3 ln d).
        generational: Wait for all of a generation before the next is asked; an actor may idle.
        restarts: Start over where pycma finds that nothing moves any more.
        diagonal: Covariance matrix without off-diagonal entries; by default above 1,000
            dimensions.
    """

    takes_bits: ClassVar[bool] = False

    kind: Literal["cma"] = "cma"
    preset: Literal["paper"] | None = None
    sigma: float = Field(default=1 / 6, gt=0.0, le=1.0)
    popsize: int | None = Field(default=None, ge=2)
    generational: bool = False
    restarts: bool = False
    diagonal: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {"popsize": 128, "generational": True, **values}
        return values

    def is_diagonal(self, num_dimensions: int) -> bool:
        """Whether the covariance matrix is diagonal for a genome of this size."""
        return num_dimensions > DIAGONAL_ABOVE if self.diagonal is None else self.diagonal


class Cma(NevergradOptimizer[CmaConfig]):
    """CMA-ES whose two-valued numbers lie half a standard deviation from where they turn.

    At 0 or 1 they would hardly ever turn: that is three standard deviations away. At most two
    generations may be outstanding.

    Attributes:
        reach: See `Steered`; 0 of a diagonal matrix, which is for more numbers than are foretold,
            and where a number is whole or stands idle: there, a point that is scored is not the one
            that the distribution is made of.
    """

    reach: int = 0

    def __init__(self, config: CmaConfig, box: Box, goals: Sequence[Goal], seed: int) -> None:
        self._halves = {
            place: ((low + high) / 2, config.sigma * (high - low) / 2)
            for place, (low, high) in enumerate(zip(box.low, box.high, strict=True))
            if box.integer and box.integer[place] and high - low == 1.0
        }
        self.generational = config.generational
        if config.is_diagonal(len(box.low)):
            why = f" (more than {DIAGONAL_ABOVE:,} dimensions)" if config.diagonal is None else ""
            self.note = f"diagonal covariance{why}"
        super().__init__(config, replace(box, start=self._around_middle(box.start)), goals, seed)

    def _start(self) -> None:
        super()._start()
        self.population = self._inner._popsize
        self.max_outstanding = (1 if self.generational else 2) * self.population
        is_plain = not any(self.box.integer) and self._num_dimensions == len(self.box.low)
        is_full = not self.config.is_diagonal(len(self.box.low))
        self.reach = self._num_dimensions if is_plain and is_full else 0

    def points_at(self, coordinates: Floats) -> list[Point]:
        """See `Steered`."""
        strategy, parametrization = self._inner.es, self._inner.parametrization
        scales = strategy.sigma * strategy.sigma_vec.scaling
        root = strategy.sm.B * strategy.sm.D
        child, points = parametrization.spawn_child(), []
        for data in strategy.mean + scales * (coordinates @ root.T):
            child.set_standardized_data(data, reference=parametrization)
            points.append(self._settle(child.value))
        return points

    def _build(self, parametrization: Any) -> Any:
        import nevergrad as ng

        num_dimensions = parametrization.dimension
        # nevergrad multiplies the scale by 0.3 below 18 dimensions and by 0.15 from there on.
        multiplier = 0.3 if num_dimensions < 18 else 0.15
        optimizer = ng.optimizers.ParametrizedCMA(
            scale=self.config.sigma / multiplier,
            popsize=self.config.popsize,
            diagonal=self.config.is_diagonal(num_dimensions),
        )(parametrization, num_workers=1)
        if not self.config.restarts:
            # nevergrad starts over in silence when pycma says stop: on a plateau of equal
            # accuracies, and once converged. Not all of its reasons can be switched off.
            _keep_strategy(optimizer)
        return optimizer

    def _around_middle(self, genome: Point) -> Point:
        numbers = list(genome)
        for place, (middle, away) in self._halves.items():
            numbers[place] = middle + (away if numbers[place] > middle else -away)
        return tuple(numbers)

    def _in_place_of(self, asked: Any, genome: Point) -> Any:
        return super()._in_place_of(asked, self._around_middle(genome))


def _keep_strategy(optimizer: Any) -> None:
    """Fix nevergrad's evolution strategy, `es`: no look at it prepares or begins another."""
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (kind,), {"es": optimizer.es})


OPTIMIZERS.add(CmaConfig, Cma)
