"""The optimizer does what one must, and is better than chance on a bowl."""

import random
from functools import partial

from evomerge_example.optimizer import Steps, StepsConfig

from evomerge.optimize import Box, Goal, Scored
from evomerge.testing.optimizers import OptimizerCase, check_optimizer

BOX = Box(low=(0.0,) * 4, high=(1.0,) * 4, start=(0.5,) * 4)


def bowl(point):
    return sum((x - 0.8) ** 2 for x in point)


def test_it_does_what_an_optimizer_must():
    check_optimizer(OptimizerCase(partial(Steps, StepsConfig())))


def test_it_is_better_than_random_points():
    rng = random.Random(0)
    for seed in range(5):
        optimizer = Steps(StepsConfig(), BOX, [Goal()], seed)
        found = []
        for _ in range(100):
            ask = optimizer.ask()
            found.append(bowl(ask.genome))
            optimizer.tell(ask.number, Scored((found[-1],), (0.0,)))
        assert min(found) < min(bowl([rng.random() for _ in range(4)]) for _ in range(100))
