"""Recipes that need no search: the models of a pool themselves, and the usual merges of them."""

from __future__ import annotations

from evomerge.methods import MethodConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe


def member(pool: Pool, name: str) -> Recipe:
    """A model of the pool, exactly."""
    return _merge(pool, LinearConfig(), (name,), 1.0)


def uniform(pool: Pool) -> Recipe:
    """The average of the experts."""
    return average(pool, _experts(pool))


def average(pool: Pool, experts: tuple[str, ...]) -> Recipe:
    """The average of some experts."""
    return _merge(pool, LinearConfig(), experts, 1.0)


def task_arithmetic(pool: Pool, scale: float) -> Recipe:
    """The base plus every task vector times the same scale."""
    return _merge(pool, TaskArithmeticConfig(), _experts(pool), scale)


def _experts(pool: Pool) -> tuple[str, ...]:
    return tuple(expert.name for expert in pool.experts)


def _merge(pool: Pool, method: MethodConfig, models: tuple[str, ...], weight: float) -> Recipe:
    part = Part(method=method, models=models, parameters={"weight": dict.fromkeys(models, weight)})
    return Recipe(
        schema_version=pool.schema_version,
        members=pool.members,
        dtype=pool.dtype,
        parts=(part,),
        vocabulary=pool.vocabulary,
    )
