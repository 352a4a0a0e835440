"""CMA-ES where some numbers are a choice of two."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from evomerge.optimize import OPTIMIZERS, Box, Goal, Optimizer, Scored

NUM_EXPERTS = 6


def choosing(seed: int):
    """Loss of bits that say which experts are used, and of their weights; two are wanted."""
    rng = np.random.default_rng(seed)
    target = np.zeros(NUM_EXPERTS)
    target[rng.permutation(NUM_EXPERTS)[:2]] = [0.8, 0.5]
    mix = 0.4 * rng.normal(size=(NUM_EXPERTS, NUM_EXPERTS))
    hessian = np.eye(NUM_EXPERTS) + mix @ mix.T

    def loss(genome) -> float:
        bits, weights = np.asarray(genome[:NUM_EXPERTS]), np.asarray(genome[NUM_EXPERTS:])
        away = bits * weights - target
        return float(away @ hessian @ away + 0.05 * bits[target == 0].sum())

    return loss


CHOICES = Box(
    (0.0,) * 2 * NUM_EXPERTS,
    (1.0,) * 2 * NUM_EXPERTS,
    (1.0,) * NUM_EXPERTS + (0.5,) * NUM_EXPERTS,
    (True,) * NUM_EXPERTS + (False,) * NUM_EXPERTS,
)


def make(seed: int, kind: str = "cma") -> Optimizer:
    return OPTIMIZERS.make(OPTIMIZERS[kind].config(kind=kind), CHOICES, [Goal()], seed)


@functools.cache
def least(seed: int, kind: str) -> float:
    """The least loss of 300 evaluations."""
    loss, optimizer = choosing(seed), make(seed, kind)
    losses = []
    for _ in range(300):
        answer = optimizer.ask()
        assert set(answer.genome[:NUM_EXPERTS]) <= {0.0, 1.0}
        losses.append(loss(answer.genome))
        optimizer.tell(answer.number, Scored((losses[-1],), (0.0,)))
    return min(losses)


@pytest.mark.parametrize("other", ["nevergrad", "random"])
def test_choices_of_two_beside_real_numbers(other):
    """Better than what bits used to want, at the same budget."""
    assert sum(least(seed, "cma") < least(seed, other) for seed in range(5)) >= 4


def test_the_first_choices_are_mostly_the_start():
    found = []
    for seed in range(20):
        optimizer = make(seed)
        found += [optimizer.ask().genome[:NUM_EXPERTS] for _ in range(10)]
    # Half a standard deviation from where they turn: 31 % do.
    assert np.mean(found) == pytest.approx(0.69, abs=0.04)


def test_a_point_from_outside_has_the_choices_that_it_has():
    optimizer = make(1)
    point = (0.0, 1.0) * NUM_EXPERTS
    seen = []
    inner_tell = optimizer._inner_tell
    optimizer._inner_tell = lambda candidate, loss: (
        seen.append((candidate.value, optimizer._genome(candidate))),
        inner_tell(candidate, loss),
    )
    optimizer.tell(point, Scored((0.5,), (0.0,)))
    ((told, genome),) = seen
    assert genome == point
    assert told[:2] == pytest.approx([0.5 - 1 / 12, 0.5 + 1 / 12])
