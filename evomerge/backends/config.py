"""Which engine runs a model, and how requests are batched for it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from evomerge.backends.passes import Way
from evomerge.errors import InputError
from evomerge.recipe import Recipe
from evomerge.registry import Choice, Registry, Section
from evomerge.score.backend import Backend
from evomerge.score.config import HFLM


class EngineConfig(Choice):
    """Settings of an engine.

    Attributes:
        kind: Its name.
        runs_paths: Whether it runs layers in another order than the base's.
        spreads: Whether it runs one model on several GPUs; its factory is then called with a tuple
            of further devices behind `batching`, where an actor has more than one.
    """

    runs_paths: ClassVar[bool] = False
    spreads: ClassVar[bool] = False


class OwnEngine(EngineConfig):
    """Runs what requests share once, and the head only where it is read."""

    kind: Literal["own"] = "own"
    runs_paths: ClassVar[bool] = True
    spreads: ClassVar[bool] = True


class HflmEngine(EngineConfig):
    """lm-eval's own model: each request by itself."""

    kind: Literal["hflm"] = "hflm"
    runs_paths: ClassVar[bool] = True
    spreads: ClassVar[bool] = True


BACKENDS: Registry[Backend] = Registry("engine", "evomerge.backends")
"""Backends by name; a factory is called with settings, pool, device, tokenizer and batching, and
with further devices behind them where there are some (`EngineConfig.spreads`)."""


BATCHED = (OwnEngine().kind, HflmEngine().kind)
"""Engines whose batches `score.batch_tokens` limits."""


class Batching(Section):
    """How requests are batched: found before a run begins, and kept by it.

    Attributes:
        way: How the model is run.
        tokens: That are run at once, padding included.
        cached: Tokens whose keys and values are kept or read at once, with what all rows of a
            batch share counted for each.
        reads: Places at which the head is read at once.
    """

    way: Way
    tokens: int
    cached: int
    reads: int


def engine_of(score: Choice) -> EngineConfig:
    """The engine that a `score` section names.

    Raises:
        InputError: There is none of that name, or it has no such settings.
    """
    # A scorer of another package may leave it out.
    value: Any = getattr(score, "engine", "own")
    value = HFLM if value is None else value
    settings = {"kind": value} if isinstance(value, str) else value
    kind = settings.get("kind")
    if not isinstance(kind, str):
        raise InputError(f"score.engine: expected a name, or settings with a kind; got {value!r}")
    try:
        made = BACKENDS[kind].config.model_validate(settings)
    except InputError as error:
        raise InputError(f"score.engine: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("score.engine", *first["loc"])))
        raise InputError(f"{where}: {first['msg']}") from None
    assert isinstance(made, EngineConfig)
    return made


def require_paths(engine: EngineConfig, recipe: Recipe) -> None:
    """Refuse a recipe whose layers the engine cannot run.

    Raises:
        InputError: The recipe has a path, and the engine runs none.
    """
    if recipe.path is not None and not engine.runs_paths:
        raise InputError(
            f"score.engine: {engine.kind} cannot run layers in another order, and the recipe has "
            "a path"
        )


def require_spread(engine: EngineConfig, num_gpus: float | None) -> None:
    """Refuse several GPUs for each actor, where the engine would use one.

    Raises:
        InputError: It would.
    """
    if num_gpus is not None and num_gpus > 1.0 and not engine.spreads:
        raise InputError(
            f"workers.num_gpus: score.engine {engine.kind} runs a model on one GPU, and an actor "
            f"asks for {num_gpus:g}\nvalid: up to 1"
        )
