"""NSGA-II on the measured losses themselves, by pymoo: no surrogate, any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Done,
    Goal,
    OptimizerConfig,
    Outcome,
    Point,
    Scored,
    Told,
    Wait,
    replay_difference,
)


class Nsga2Config(OptimizerConfig):
    """NSGA-II (Deb et al. 2002).

    Attributes:
        kind: The optimizer.
        population: Points of a generation; none of the next is asked before all are told.
    """

    finds_front: ClassVar[bool] = True
    asks_landmarks: ClassVar[bool] = True

    kind: Literal["nsga2"] = "nsga2"
    population: int = Field(default=24, ge=4)


class Nsga2Optimizer:
    """See `Optimizer`. A failed point is told as worse than all others; limits are constraints.

    Points from outside join the generation that is told next.

    Args:
        config: Its settings.
        box: The domain.
        goals: The losses.
        seed: Of every random number.
    """

    def __init__(self, config: Nsga2Config, box: Box, goals: Sequence[Goal], seed: int) -> None:
        self.box = box
        self.goals = tuple(goals)
        self.max_outstanding = config.population
        low, high = np.asarray(box.low), np.asarray(box.high)
        self._limits = [(k, g.limit) for k, g in enumerate(goals) if g.limit is not None]
        # Half a second to import, for those who use it.
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem

        problem = Problem(
            n_var=len(low), n_obj=len(goals), n_ieq_constr=len(self._limits), xl=low, xu=high
        )
        rng = np.random.default_rng(seed)
        first = low + (high - low) * rng.random((config.population, len(low)))
        chosen = [*dict.fromkeys([box.start, *box.landmarks])][: config.population]
        first[: len(chosen)] = chosen
        self._algorithm = NSGA2(pop_size=config.population, sampling=first)
        self._algorithm.setup(problem, termination=("n_gen", 1 << 30), seed=seed, verbose=False)
        self._generation: list[Any] = []
        self._foreign: list[Any] = []
        self._outcomes: dict[int, Outcome] = {}
        self._begins = 0
        self._num_asked = 0

    def ask(self) -> Ask | Wait | Done:
        """See `Optimizer`."""
        place = self._place()
        if place is None:
            return Wait()
        point = self.box.settle(tuple(float(x) for x in self._generation[place].X))
        self._generation[place].X = np.asarray(point)
        self._num_asked += 1
        return Ask(self._num_asked - 1, point)

    def tell(self, point: int | Point, outcome: Outcome) -> None:
        """See `Optimizer`."""
        if not isinstance(point, int):
            from pymoo.core.individual import Individual

            self._foreign.append((Individual(X=np.asarray(point)), outcome))
            return
        is_outstanding = self._begins <= point < self._num_asked and point not in self._outcomes
        if not is_outstanding:
            raise ValueError(f"ask {point} is not outstanding")
        self._outcomes[point] = outcome
        if len(self._outcomes) == len(self._generation):
            self._end_generation()

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """See `Optimizer`: a replay, in which recorded points take the place of others."""
        difference = None
        for event in events:
            if isinstance(event, Told):
                self.tell(event.genome if event.number is None else event.number, event.outcome)
                continue
            answer = self.ask()
            assert isinstance(answer, Ask)
            reason = replay_difference(event.number, answer.genome, event.genome, self.box)
            if reason is not None:
                difference = difference or reason
                self._generation[event.number - self._begins].X = np.asarray(event.genome)
        return difference

    def _place(self) -> int | None:
        """The next point's place in the generation; None while its other points are not told."""
        if not self._generation:
            self._generation = list(self._algorithm.ask())
            self._begins = self._num_asked
        place = self._num_asked - self._begins
        return place if place < len(self._generation) else None

    def _end_generation(self) -> None:
        from pymoo.core.population import Population

        told = [
            (individual, self._outcomes[self._begins + place])
            for place, individual in enumerate(self._generation)
        ]
        told += self._foreign
        scored = [outcome.losses for _, outcome in told if isinstance(outcome, Scored)]
        known = np.array(scored).reshape(-1, len(self.goals))
        if self._algorithm.pop is not None and len(self._algorithm.pop):
            known = np.concatenate([known, self._algorithm.pop.get("F")])
        worst = known.max(axis=0) + 1.0 if len(known) else np.ones(len(self.goals))
        for individual, outcome in told:
            losses = np.array(outcome.losses) if isinstance(outcome, Scored) else worst
            individual.F = losses
            individual.G = np.array([losses[k] - limit for k, limit in self._limits])
            individual.H = np.zeros(0)
            individual.evaluated.update(("F", "G", "H"))
        self._algorithm.tell(infills=Population.create(*[individual for individual, _ in told]))
        self._generation, self._foreign, self._outcomes = [], [], {}


def make_nsga2(config: Nsga2Config, box: Box, goals: Sequence[Goal], seed: int) -> Nsga2Optimizer:
    """Build the optimizer."""
    return Nsga2Optimizer(config, box, goals, seed)


OPTIMIZERS.add(Nsga2Config, make_nsga2)
