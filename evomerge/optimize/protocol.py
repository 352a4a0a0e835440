"""The `Optimizer` joint: ask for a genome, tell what it scored. Numbers only; losses are minimized.

An optimizer is deterministic given its seed and the sequence of calls; it reads no clock and no
global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evomerge.registry import Choice, Registry

Point = tuple[float, ...]

SurrogateKind = Literal[
    "automatic", "quadratic", "gaussian_process", "quadratic_and_gaussian_process"
]

TOLERANCE = 1e-9
"""A replayed point further than this share of the range from its record is another point."""


@dataclass(frozen=True)
class Box:
    """The domain.

    Attributes:
        low: Least value of each dimension, shape [d], with d >= 1.
        high: Greatest value of each.
        start: First guess.
        integer: Which dimensions take whole numbers only; empty: none.
        landmarks: Points worth a look before any other: experts, base, their average.
        canonical: Gives a point's representative among those that are scored alike; by default
            every point is its own.
    """

    low: Point
    high: Point
    start: Point
    integer: tuple[bool, ...] = ()
    canonical: Callable[[Point], Point] | None = None
    landmarks: tuple[Point, ...] = ()

    def settle(self, point: Point) -> Point:
        """The point that is scored for a proposed one: within bounds, whole where it must be."""
        integer = self.integer or (False,) * len(self.low)
        settled = tuple(
            float(round(min(max(x, low), high))) if is_integer else x
            for x, low, high, is_integer in zip(point, self.low, self.high, integer, strict=True)
        )
        return settled if self.canonical is None else self.canonical(settled)


@dataclass(frozen=True)
class Goal:
    """A loss to be minimized.

    Attributes:
        preference: Its weight where several are added up.
        low: Least value that it can have; None: none is known.
        high: Greatest value that it can have; None: none is known.
        limit: Greatest value that is allowed; None: any is.
        reference: Value from which on less loss counts in hypervolumes; None: a little beyond the
            worst of the front.
    """

    preference: float = 1.0
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    reference: float | None = None

    @property
    def unit(self) -> float:
        """Width of its range; 1 where that is not known."""
        return 1.0 if self.low is None or self.high is None else self.high - self.low


@dataclass(frozen=True)
class Ask:
    """A point to score; `number` counts the asks from 0."""

    number: int
    genome: Point


@dataclass(frozen=True)
class Wait:
    """No point before something outstanding is told."""


@dataclass(frozen=True)
class Done:
    """No further point."""

    reason: str


@dataclass(frozen=True)
class Scored:
    """What a point scored, one for each objective.

    Attributes:
        losses: The losses.
        standard_errors: Theirs.
        design_errors: Of losses that are estimated from some of the documents, standard errors
            against what all of them would give; empty: all of them were measured.
    """

    losses: tuple[float, ...]
    standard_errors: tuple[float, ...]
    design_errors: tuple[float, ...] = ()

    @property
    def is_estimate(self) -> tuple[bool, ...]:
        """Which of the losses are estimated."""
        return tuple(error > 0.0 for error in self.design_errors) or (False,) * len(self.losses)


@dataclass(frozen=True)
class Failed:
    """The point could not be scored."""

    reason: str


Outcome = Scored | Failed


@dataclass(frozen=True)
class Asked:
    """A recorded ask.

    Attributes:
        number: Its number.
        genome: What was scored for it.
        proposed: What was asked, where another point was scored in its place.
        is_certain: Whether it is known that nothing else was asked; not of a line that was made
            again from what a damaged journal has left.
    """

    number: int
    genome: Point
    proposed: Point | None = None
    is_certain: bool = True


@dataclass(frozen=True)
class Told:
    """A recorded tell; `number` is the ask's, or None for a point from outside."""

    number: int | None
    genome: Point
    outcome: Outcome


def replay_difference(number: int, genome: Point, recorded: Point, box: Box) -> str | None:
    """How a replayed ask differs from its record; None where it does not."""
    ends = zip(genome, recorded, box.low, box.high, strict=False)
    far = max(abs(ours - theirs) / ((high - low) or 1.0) for ours, theirs, low, high in ends)
    return f"ask {number} differs by {far:.3g} of the range" if far > TOLERANCE else None


class Optimizer(Protocol):
    """Proposes points of a box.

    Attributes:
        max_outstanding: Points that may be asked and not yet told before quality suffers.
        population: Points of a generation, where it has generations.
        min_evaluations: Points that it must measure to find anything, which a budget has to pay
            for; 0: any budget will do.
        plan: What these points are called in messages: its "design", its "tree".
        note: What `check` says beside its kind; empty: nothing.
    """

    max_outstanding: int
    population: int | None
    min_evaluations: int
    plan: str
    note: str

    def ask(self) -> Ask | Wait | Done:
        """Propose the next point."""

    def tell(self, point: int | Point, outcome: Outcome) -> None:
        """Report a point: by the number of its ask, or a point from outside by its genome.

        Raises:
            ValueError: The number was not asked or is told already.
        """

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """Go on from a record, before the first ask. Recorded points are the truth.

        Returns:
            None when a replay gives the recorded points; else why it does not, and then the
            optimizer has been rebuilt from what was recorded. One whose asks follow from the
            record alone takes it in without a replay.
        """

    def describe(self) -> str:
        """What it will measure, in a line that `check` prints; empty: nothing to say."""


@runtime_checkable
class Steered(Protocol):
    """An optimizer of one loss that says where it looks, and has other points scored for its asks.

    Attributes:
        reach: How many coordinates say where it looks; 0: it does not say it.
    """

    reach: int

    def points_at(self, coordinates: NDArray[np.float64]) -> list[Point]:
        """The points at places of its distribution.

        Args:
            coordinates: Shape [n, reach]; standard normal ones give the distribution.
        """

    def replace(self, number: int, point: Point) -> Point:
        """Have a point scored for an outstanding ask.

        Returns:
            The point as it is scored.
        """


class OptimizerConfig(Choice):
    """Base of every optimizer's settings.

    Attributes:
        finds_front: Whether it looks for a front; else for one best point.
        fits_surrogates: Whether what it asks follows from surrogates of all that was told, and not
            from how the latest points compare.
        asks_landmarks: Whether it asks for the box's landmarks, or its own, by itself.
        takes_bits: Whether it can search a space whose numbers are mostly a choice of two.
        max_modeled: Numbers of a genome up to which surrogates are fitted to what it measured,
            for the front that is reported.
    """

    finds_front: ClassVar[bool] = False
    fits_surrogates: ClassVar[bool] = False
    asks_landmarks: ClassVar[bool] = False
    takes_bits: ClassVar[bool] = True
    max_modeled: ClassVar[int] = 10

    @property
    def modeled_by(self) -> SurrogateKind:
        """The surrogates that are fitted to what it measured, for the front that is reported."""
        return "quadratic"


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", "evomerge.optimizers")
"""Factories take (config, box, goals, seed), with a goal for each loss."""
