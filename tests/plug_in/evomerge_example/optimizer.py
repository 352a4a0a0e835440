"""An optimizer of another package: random steps from the best point so far."""

import random
from typing import Literal

from evomerge.optimize import BaseOptimizer, OptimizerConfig, Scored


class StepsConfig(OptimizerConfig):
    kind: Literal["steps"] = "steps"


class Steps(BaseOptimizer):
    max_outstanding = 8

    def _start(self):
        self._random, self._best, self._least = random.Random(self.seed), self.box.start, 1e300

    def _propose(self):
        ends = zip(self._best, self.box.low, self.box.high, strict=True)
        moved = ((x + self._random.uniform(-0.2, 0.2) * (b - a), a, b) for x, a, b in ends)
        return self.box.settle(tuple(min(max(x, a), b) for x, a, b in moved))

    def _observe(self, point, outcome):
        if isinstance(outcome, Scored) and sum(outcome.losses) < self._least:
            self._best, self._least = point, sum(outcome.losses)


def register(optimizers):
    optimizers.add(StepsConfig, Steps)
