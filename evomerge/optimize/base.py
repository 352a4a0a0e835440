"""The bookkeeping that all optimizers share: numbers, outstanding asks, going on from a record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar, cast

from evomerge.optimize.protocol import (
    Ask,
    Asked,
    Box,
    Done,
    Goal,
    OptimizerConfig,
    Outcome,
    Point,
    Told,
    Wait,
    replay_difference,
)

Config = TypeVar("Config", bound=OptimizerConfig)
Proposal = TypeVar("Proposal")


class BaseOptimizer(ABC, Generic[Config, Proposal]):
    """An `Optimizer` that is written as `_start`, `_propose` and `_observe`.

    The class is its own factory: `OPTIMIZERS.add(GuessConfig, Guess)` registers this one:

        class Guess(BaseOptimizer[GuessConfig, Point]):
            max_outstanding = 8

            def _start(self):
                self._rng = random.Random(self.seed)

            def _propose(self):
                ends = zip(self.box.low, self.box.high)
                return self.box.settle(tuple(self._rng.uniform(*pair) for pair in ends))

            def _observe(self, point, outcome):
                pass

    What an `Optimizer` declares beside its calls is a class attribute, or set in `_start`. A
    proposal is the point itself, or any object that the implementation wants back together with
    the outcome; for such objects it also writes `_genome` and `_adopt`.

    Args:
        config: Its settings.
        box: The domain.
        goals: The losses.
        seed: Of every random number.

    Attributes:
        follows_record: Whether the next ask follows from the asks and tells alone, whatever was
            proposed; then a record is taken in without proposing anything. Else every ask is
            repeated, as its random numbers must be drawn.
    """

    follows_record: ClassVar[bool] = False

    max_outstanding: int = 1
    population: int | None = None
    min_evaluations: int = 0
    plan: str = "design"
    note: str = ""

    def __init__(self, config: Config, box: Box, goals: Sequence[Goal], seed: int) -> None:
        self.config = config
        self.box = box
        self.goals = tuple(goals)
        self.seed = seed
        self._reset()

    def ask(self) -> Ask | Wait | Done:
        """See `Optimizer`."""
        if len(self._outstanding) >= self.max_outstanding:
            return Wait()
        found = self._propose()
        if isinstance(found, Wait | Done):
            if self._outstanding:
                return Wait()
            # A search would wait forever for a tell that cannot come.
            return found if isinstance(found, Done) else Done("nothing outstanding to wait for")
        number = self._num_asked
        self._num_asked += 1
        self._outstanding[number] = found
        return Ask(number, self._genome(found))

    def tell(self, point: int | Point, outcome: Outcome) -> None:
        """See `Optimizer`."""
        if isinstance(point, int):
            self._observe(self._take(point), outcome)
        else:
            self._observe_foreign(point, outcome)

    def replace(self, number: int, point: Point) -> Point:
        """See `Steered`."""
        self._outstanding[number] = self._adopt(self._outstanding[number], point)
        return self._genome(self._outstanding[number])

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """See `Optimizer`: a replay of asks and tells; rebuilt from the record where it differs."""
        difference = self._replay(events, recorded=self.follows_record)
        if difference is not None:
            self._reset()
            self._replay(events, recorded=True)
        return difference

    def describe(self) -> str:
        """See `Optimizer`."""
        return ""

    @abstractmethod
    def _start(self) -> None:
        """Set all that asks and tells change as it is before the first ask."""

    @abstractmethod
    def _propose(self) -> Proposal | Wait | Done:
        """The next proposal; `self._num_asked` is its number.

        Done, while something is outstanding, is answered as Wait: the next tell may change it.
        """

    @abstractmethod
    def _observe(self, proposal: Proposal, outcome: Outcome) -> None:
        """Learn what a proposal scored."""

    def _observe_foreign(self, point: Point, outcome: Outcome) -> None:
        """Learn what a point from outside scored."""
        self._observe(self._adopt(None, point), outcome)

    def _genome(self, proposal: Proposal) -> Point:
        """The point that is scored for a proposal."""
        return cast(Point, proposal)

    def _adopt(self, proposal: Proposal | None, point: Point) -> Proposal:
        """What stands for a recorded point or one from outside.

        Args:
            proposal: What was proposed in its place; None: nothing was.
            point: The point.
        """
        return cast(Proposal, point)

    def _take(self, number: int) -> Proposal:
        if number not in self._outstanding:
            raise ValueError(f"ask {number} is not outstanding")
        return self._outstanding.pop(number)

    def _reset(self) -> None:
        self._num_asked = 0
        self._outstanding: dict[int, Proposal] = {}
        self._start()

    def _replay(self, events: Sequence[Asked | Told], *, recorded: bool) -> str | None:
        """Repeat a record; `recorded`: its points take the place of those proposed.

        Returns:
            Where the replay first differs and therefore ends; None where it does not.
        """
        for event in events:
            if isinstance(event, Told):
                self.tell(event.genome if event.number is None else event.number, event.outcome)
                continue
            self._num_asked = event.number
            found = Wait() if self.follows_record else self._propose()
            proposal = None if isinstance(found, Wait | Done) else found
            if recorded:
                proposal = self._adopt(proposal, event.genome)
            elif proposal is None:
                return f"ask {event.number}: nothing new is proposed"
            else:
                genome, record = self._genome(proposal), event.proposed or event.genome
                difference = replay_difference(event.number, genome, record, self.box)
                if difference is not None and event.is_certain:
                    return difference
                if difference is not None or event.proposed is not None:
                    proposal = self._adopt(proposal, event.genome)
            self._outstanding[event.number] = proposal
            self._num_asked += 1
        return None
