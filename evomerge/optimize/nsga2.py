"""NSGA-II on the measured losses themselves, by pymoo: no surrogate, any number of dimensions."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.optimize.base import BaseOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, OptimizerConfig, Outcome, Point, Scored, Wait


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


class Nsga2Optimizer(BaseOptimizer[Nsga2Config, Any]):
    """A proposal is pymoo's individual.

    A failed point is told as worse than all others; limits are constraints. Points from outside
    join the generation that is told next.
    """

    def _start(self) -> None:
        box, population = self.box, self.config.population
        self.max_outstanding = self.population = population
        low, high = np.asarray(box.low), np.asarray(box.high)
        self._limits = [(k, g.limit) for k, g in enumerate(self.goals) if g.limit is not None]
        # Half a second to import, for those who use it.
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem

        problem = Problem(
            n_var=len(low), n_obj=len(self.goals), n_ieq_constr=len(self._limits), xl=low, xu=high
        )
        rng = np.random.default_rng(self.seed)
        first = low + (high - low) * rng.random((population, len(low)))
        chosen = [*dict.fromkeys([box.start, *box.landmarks])][:population]
        first[: len(chosen)] = chosen
        self._algorithm = NSGA2(pop_size=population, sampling=first)
        self._algorithm.setup(
            problem, termination=("n_gen", 1 << 30), seed=self.seed, verbose=False
        )
        self._generation: list[Any] = []
        self._outcomes: dict[Any, Outcome] = {}

    def _propose(self) -> Any:
        if not self._generation:
            self._generation = list(self._algorithm.ask())
            self._unasked = iter(self._generation)
        individual = next(self._unasked, None)
        if individual is None:
            return Wait()
        return self._adopt(individual, self.box.settle(self._genome(individual)))

    def _observe(self, proposal: Any, outcome: Outcome) -> None:
        self._outcomes[proposal] = outcome
        if self._generation and all(one in self._outcomes for one in self._generation):
            self._end_generation()

    def _genome(self, proposal: Any) -> Point:
        return tuple(float(x) for x in proposal.X)

    def _adopt(self, proposal: Any, point: Point) -> Any:
        from pymoo.core.individual import Individual

        individual = Individual() if proposal is None else proposal
        individual.X = np.asarray(point)
        return individual

    def _end_generation(self) -> None:
        from pymoo.core.population import Population

        # In the order in which they were asked; then those from outside.
        told = dict.fromkeys([*self._generation, *self._outcomes])
        scored = [
            outcome.losses for outcome in self._outcomes.values() if isinstance(outcome, Scored)
        ]
        known = np.array(scored).reshape(-1, len(self.goals))
        if self._algorithm.pop is not None and len(self._algorithm.pop):
            known = np.concatenate([known, self._algorithm.pop.get("F")])
        worst = known.max(axis=0) + 1.0 if len(known) else np.ones(len(self.goals))
        for individual in told:
            outcome = self._outcomes[individual]
            losses = np.array(outcome.losses) if isinstance(outcome, Scored) else worst
            individual.F = losses
            individual.G = np.array([losses[k] - limit for k, limit in self._limits])
            individual.H = np.zeros(0)
            individual.evaluated.update(("F", "G", "H"))
        self._algorithm.tell(infills=Population.create(*told))
        self._generation, self._outcomes = [], {}


OPTIMIZERS.add(Nsga2Config, Nsga2Optimizer)
