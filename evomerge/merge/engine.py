"""Recipe and pool to weights: one pass over the pool, block by block, one cast at the end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from evomerge.errors import InputError
from evomerge.merge.passes import Passes, not_finite
from evomerge.methods import (
    METHODS,
    Coefficients,
    Method,
    Operands,
    SettlingMethod,
    Statistics,
    WholeModelMethod,
)
from evomerge.methods.fused import FUSED_FROM
from evomerge.pool import Checkpoint, Pool
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
        fused_from: Numbers in a tensor from which on it is merged by a compiled loop, where there
            is one for it; the result is the same.
    """

    def __init__(
        self,
        pool: Pool,
        device: torch.device | None = None,
        statistics_budget_bytes: int = 1 << 30,
        fused_from: int = FUSED_FROM,
    ) -> None:
        self.pool = pool
        self.fused_from = fused_from
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
        with Passes() as passes:
            for name, part in self._plan(recipe):
                self._merge_into(state[name].data.view(-1), name, part, recipe.mask_seed, passes)

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
            with Passes() as passes:
                self._merge_into(result.view(-1), name, plan[name], recipe.mask_seed, passes)
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

    def _merge_into(
        self, target: Tensor, name: str, part: Part, mask_seed: int, passes: Passes
    ) -> None:
        """Merge a tensor into a flat target, in a pass where there is one, else block by block."""
        method: Method = METHODS.make(part.method)
        whole = self._operands(name, part, method)
        statistics = self._prepared(whole, part, method, mask_seed)
        if self.device.type == "cpu" and len(target) >= self.fused_from:
            from evomerge.methods.fused.passes import fuse

            fused = fuse(method, whole, statistics, part.coefficients(), target)
            if fused is not None:
                passes.add(name, fused, len(target))
                return
        for start, block in self._combine(whole, statistics, part, method, mask_seed):
            _write(name, target[start : start + block.numel()], block)

    def _combine(
        self, whole: Operands, statistics: Statistics, part: Part, method: Method, mask_seed: int
    ) -> Iterator[tuple[int, Tensor]]:
        coefficients: Coefficients = part.coefficients()
        if method.needs.settling:
            settling = cast(SettlingMethod, method)
            statistics += settling.settle(whole, statistics, coefficients)
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
        key = checkpoint.name, name
        if key not in self._resident:
            self._resident[key] = checkpoint.tensor(name).reshape(-1).to(self.device)
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
        raise not_finite(name)


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
