"""Every phase's space, and an optimizer that can search it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from evomerge.backends import EngineConfig
from evomerge.config import SIMPLE, Config, PhaseConfig
from evomerge.errors import InputError
from evomerge.models.path_proof import prove_paths
from evomerge.optimize import OptimizerConfig
from evomerge.optimize.any_nevergrad import NevergradConfig
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.space import SPACES, Space

FOR_BITS: OptimizerConfig = NevergradConfig()
"""The optimizer of a space of choices, where nobody names one."""

S = TypeVar("S", Config, PhaseConfig)


def make_spaces(config: Config, pool: Pool, engine: EngineConfig) -> tuple[Space, ...]:
    """Every phase's space, so that none is found wrong after the ones before it have been run.

    Raises:
        InputError: A space does not fit the pool, the engine, or the phases around it.
    """
    spaces: list[Space] = []
    merged: Recipe | None = None
    for number, phase in enumerate(config.all_phases):
        spaces.append(make_space(phase, pool, merged))
        merged = spaces[-1].to_recipe([d.start for d in spaces[-1].dimensions])
        if merged.path is not None and not engine.runs_paths:
            raise InputError(
                f"score.engine: {engine.kind} cannot run layers in another order, and the space "
                f"{phase.space.kind!r} needs that; set engine: own"
            )
        if merged.path is not None:
            prove_paths(pool)
        if merged.path is not None and number + 1 < len(config.all_phases):
            raise InputError(
                f"phases: the winner of {phase.name!r} is a path, which no later phase can merge; "
                "put it last"
            )
    return tuple(spaces)


def make_space(phase: PhaseConfig, pool: Pool, merged: Recipe | None) -> Space:
    """A phase's space behind the winner of the phase before, if there is one."""
    try:
        return SPACES.make(phase.space, pool, merged)
    except InputError as error:
        if phase.name == SIMPLE:
            raise
        raise InputError(f"phase {phase.name!r}: {error}") from None


def with_optimizers(config: Config, spaces: Sequence[Space]) -> Config:
    """The configuration with optimizers that can search its spaces.

    Raises:
        InputError: Somebody named one that cannot.
    """
    if config.phases:
        pairs = zip(config.phases, spaces, strict=True)
        phases = tuple(_with_optimizer(phase, phase, space) for phase, space in pairs)
        return config.model_copy(update={"phases": phases})
    (phase,) = config.all_phases
    return _with_optimizer(config, phase, spaces[0])


def _with_optimizer(section: S, phase: PhaseConfig, space: Space) -> S:
    bits = [d for d in space.dimensions if d.integer and d.high - d.low == 1.0]
    # A few choices beside real numbers every optimizer can make.
    if not bits or phase.optimizer.takes_bits or phase.space.kind == "parameter":
        return section
    if "optimizer" not in section.model_fields_set:
        return section.model_copy(update={"optimizer": FOR_BITS})
    raise InputError(
        f"optimizer: {phase.optimizer.kind} moves numbers, and {bits[0].name!r} has two "
        "values; use `optimizer: {kind: nevergrad}`, or a continuous encoding"
    )
