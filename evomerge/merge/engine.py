"""Recipe and pool to weights: one pass over the pool, block by block, one cast at the end."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from evomerge.errors import CandidateError, InputError
from evomerge.methods import (
    METHODS,
    Coefficients,
    Method,
    Operands,
    Statistics,
    WholeModelMethod,
)
from evomerge.pool import Adapter, Checkpoint, Pool
from evomerge.recipe import Part, Recipe

BLOCK_ELEMENTS = 1 << 18
"""Numbers combined at once: a block of a base and three experts in float32 fits a core's cache."""

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

MOST_SURVEYS = 8
"""Results about the whole model that are kept: those of one candidate's parts, at the least."""

_StatisticsKey = tuple[str, str, tuple[str, ...], int]
_SurveyKey = tuple[str, tuple[str, ...], int, tuple[tuple[str, tuple[float, ...]], ...]]


class Engine:
    """Builds candidates of one pool.

    What does not depend on a candidate's coefficients is computed once and kept while it fits
    the budget; beyond it the oldest is dropped and computed again when it is needed.

    Args:
        pool: The checkpoints.
        device: Where to compute. On a GPU the pool's tensors stay there once they are used.
        statistics_budget_bytes: Memory for what `Method.prepare` returns.
    """

    def __init__(
        self,
        pool: Pool,
        device: torch.device | None = None,
        statistics_budget_bytes: int = 1 << 30,
    ) -> None:
        self.pool = pool
        self.device = device or torch.device("cpu")
        self.statistics_budget_bytes = statistics_budget_bytes
        self._statistics: OrderedDict[_StatisticsKey, Statistics] = OrderedDict()
        self._statistics_bytes = 0
        self._surveys: OrderedDict[_SurveyKey, Statistics] = OrderedDict()
        self._resident: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def write_into(self, state: dict[str, Tensor], recipe: Recipe) -> None:
        """Overwrite a loaded model's tensors with the recipe's model.

        Args:
            state: The model's own tensors by name (`state_dict(keep_vars=True)`); aliases of
                tied tensors may be among them and are left alone.
            recipe: What to build.

        Raises:
            CandidateError: The coefficients give no model, or not a finite one.
        """
        for name, part in self._plan(recipe):
            target = state[name].data.view(-1)
            for start, block in self._combine(name, part, recipe.mask_seed):
                _write(name, target[start : start + block.numel()], block)

    def tensors(self, recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
        """The recipe's model, a tensor at a time.

        Yields:
            Name and numbers, in the recipe's dtype and the base's shape, on the CPU.

        Raises:
            CandidateError: The coefficients give no model, or not a finite one.
        """
        build = self.builder(recipe)
        for name in self.pool.layout.places:
            yield name, build(name)

    def builder(self, recipe: Recipe) -> Callable[[str], Tensor]:
        """A function that gives the recipe's tensor of a name, as `tensors` does."""
        plan = dict(self._plan(recipe))

        @torch.no_grad()
        def build(name: str) -> Tensor:
            shape = self.pool.layout.shapes[name]
            result = torch.empty(shape, dtype=TORCH_DTYPES[recipe.dtype])
            flat = result.view(-1)
            for start, block in self._combine(name, plan[name], recipe.mask_seed):
                _write(name, flat[start : start + block.numel()], block)
            return result

        return build

    def _plan(self, recipe: Recipe) -> list[tuple[str, Part]]:
        """Each tensor with the part that makes it; none is dropped in silence."""
        for part in recipe.parts:
            METHODS.make(part.method).check(part.coefficients())
        plan = []
        for name, place in self.pool.layout.places.items():
            for part in recipe.parts:
                if part.matches(place.layer, place.component):
                    plan.append((name, part))
                    break
            else:
                raise InputError(f"no part of the recipe selects tensor {name!r}")
        return plan

    def _combine(self, name: str, part: Part, mask_seed: int) -> Iterator[tuple[int, Tensor]]:
        method: Method = METHODS.make(part.method)
        coefficients: Coefficients = part.coefficients()
        whole = self._operands(name, part, method)
        statistics = self._prepared(whole, part, method, mask_seed)
        if method.needs.whole_model:
            statistics += self._survey(part, cast(WholeModelMethod, method), mask_seed)
        size = whole.models[0].numel()
        step = size if method.needs.whole_tensor else BLOCK_ELEMENTS
        for start in range(0, size, max(step, 1)):
            block = _slice(whole, start, min(start + step, size))
            yield start, method.combine(block, statistics, coefficients)

    def _operands(self, name: str, part: Part, method: Method) -> Operands:
        models = [self.pool[model] for model in part.models]
        return Operands(
            name=name,
            base=self._flat(self.pool.base, name) if method.needs.base else None,
            models=tuple(self._flat(model, name) for model in models),
            model_hashes=tuple(model.sha256 for model in models),
            offset=0,
            shape=self.pool.layout.shapes[name],
        )

    def _flat(self, checkpoint: Checkpoint, name: str) -> Tensor:
        if self.device.type == "cpu":
            return checkpoint.tensor(name).reshape(-1)
        if isinstance(checkpoint, Adapter) and name in checkpoint.updates:
            return self._changed(checkpoint, name).reshape(-1)
        return self._on_device((checkpoint.name, name), lambda: checkpoint.tensor(name)).reshape(-1)

    def _changed(self, adapter: Adapter, name: str) -> Tensor:
        """A tensor that an adapter changes, on the device: only what it is made of stays there."""
        base = name not in adapter.own
        key = (adapter.base.name if base else adapter.name, name)
        start = self._on_device(key, lambda: adapter.start(name))
        update = adapter.updates[name]
        factors = [
            self._on_device((adapter.name, key), functools.partial(adapter.read_factor, key))
            for key in update.keys
        ]
        return update.apply(start, *factors)

    def _on_device(self, key: tuple[str, str], read: Callable[[], Tensor]) -> Tensor:
        if key not in self._resident:
            self._resident[key] = read().to(self.device)
        return self._resident[key]

    def _prepared(self, whole: Operands, part: Part, method: Method, mask_seed: int) -> Statistics:
        key = whole.name, part.method.model_dump_json(), part.models, mask_seed
        if key in self._statistics:
            self._statistics.move_to_end(key)
            return self._statistics[key]
        statistics = method.prepare(whole, mask_seed)
        self._statistics[key] = statistics
        self._statistics_bytes += _size_bytes(statistics)
        while self._statistics_bytes > self.statistics_budget_bytes:
            _, dropped = self._statistics.popitem(last=False)
            self._statistics_bytes -= _size_bytes(dropped)
        return statistics

    def _survey(self, part: Part, method: WholeModelMethod, mask_seed: int) -> Statistics:
        """What the method says of all tensors, with the coefficients of a part."""
        coefficients = part.coefficients()
        key = (
            part.method.model_dump_json(),
            part.models,
            mask_seed,
            tuple(sorted(coefficients.items())),
        )

        def tensors() -> Iterable[tuple[Operands, Statistics]]:
            for name in self.pool.layout.places:
                whole = self._operands(name, part, method)
                yield whole, self._prepared(whole, part, method, mask_seed)

        if key not in self._surveys:
            self._surveys[key] = method.survey(tensors, coefficients)
            while len(self._surveys) > MOST_SURVEYS:
                self._surveys.popitem(last=False)
        return self._surveys[key]


def _write(name: str, target: Tensor, block: Tensor) -> None:
    """The one cast, from float32 to the result's type.

    Raises:
        CandidateError: A number is not finite, or too large for the type.
    """
    target.copy_(block)
    # A sum over a block that lies in the cache finds every NaN and infinity.
    if not torch.isfinite(target.sum(dtype=torch.float32)):
        raise CandidateError(f"tensor {name!r} is not finite after merging")


def _slice(whole: Operands, start: int, stop: int) -> Operands:
    return Operands(
        name=whole.name,
        base=None if whole.base is None else whole.base[start:stop],
        models=tuple(model[start:stop] for model in whole.models),
        model_hashes=whole.model_hashes,
        offset=start,
        shape=whole.shape,
    )


def _size_bytes(statistics: Statistics) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in statistics)
