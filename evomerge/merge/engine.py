"""Recipe and pool to weights: one pass over the pool, block by block, one cast at the end."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from evomerge.errors import InputError
from evomerge.merge.kept import Kept, size_bytes
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
from evomerge.methods.fused.terms import terms_of
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

_MergeKey = tuple[str, tuple[str, ...], int]
"""A method with its options as JSON, its models, and the seed of masks."""


@dataclass(frozen=True)
class _Merge:
    """A part of a recipe, with what is the same for all of its tensors."""

    part: Part
    models: tuple[Checkpoint, ...]
    hashes: tuple[str, ...]
    method: Method
    coefficients: Coefficients
    mask_seed: int
    key: _MergeKey

    @classmethod
    def of(cls, part: Part, pool: Pool, mask_seed: int) -> _Merge:
        models = tuple(pool[model] for model in part.models)
        hashes = tuple(model.sha256 for model in models)
        method = METHODS.make(part.method)
        key = part.method.model_dump_json(), part.models, mask_seed
        return cls(part, models, hashes, method, part.coefficients(), mask_seed, key)


class Engine:
    """Builds candidates of one pool.

    What does not depend on a candidate's coefficients is computed once and kept while it fits
    the budget; what has no room is computed again when it is needed.

    Args:
        pool: The checkpoints.
        device: Where to compute. On a GPU the pool's tensors stay there once they are used.
        statistics_budget_bytes: Memory for what `Method.prepare` returns, and, where that leaves
            some, for tensors that are no view of a file.
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
        self.kept = Kept(statistics_budget_bytes)
        self._surveys: OrderedDict[tuple[_MergeKey, tuple[Any, ...]], Statistics] = OrderedDict()
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
            for name, merge in self._plan(recipe):
                self._merge_into(state[name].data.view(-1), name, merge, passes)

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
                self._merge_into(result.view(-1), name, plan[name], passes)
            return result

        return build

    def _plan(self, recipe: Recipe) -> list[tuple[str, _Merge]]:
        """Each tensor with what makes it; none is dropped in silence."""
        self.kept.begin_build()
        merges = [_Merge.of(part, self.pool, recipe.mask_seed) for part in recipe.parts]
        for merge in merges:
            merge.method.check(merge.coefficients)
        plan = []
        for name, place in self.pool.layout.places.items():
            for merge in merges:
                if merge.part.matches(place.layer, place.component, name):
                    plan.append((name, merge))
                    break
            else:
                raise InputError(f"no part of the recipe selects tensor {name!r}")
        return plan

    def _merge_into(self, target: Tensor, name: str, merge: _Merge, passes: Passes) -> None:
        """Merge a tensor into a flat target, in a pass where there is one, else block by block."""
        whole, held = self._operands(name, merge)
        statistics, is_kept = self._prepared(whole, merge)
        if self.device.type == "cpu" and len(target) >= self.fused_from:
            from evomerge.methods.fused.passes import make_pass

            terms = terms_of(merge.method, whole, statistics, merge.coefficients)
            fused = None if terms is None else make_pass(terms, target)
            if fused is not None:
                held_bytes = size_bytes(held if is_kept else held + statistics)
                passes.add(name, fused, len(target), held_bytes)
                return
        for start, block in self._combine(whole, statistics, merge):
            _write(name, target[start : start + block.numel()], block)

    def _combine(
        self, whole: Operands, statistics: Statistics, merge: _Merge
    ) -> Iterator[tuple[int, Tensor]]:
        method = merge.method
        if method.needs.settling:
            settling = cast(SettlingMethod, method)
            statistics += settling.settle(whole, statistics, merge.coefficients)
        if method.needs.whole_model:
            statistics += self._survey(merge)
        size = whole.models[0].numel()
        step = size if method.needs.whole_tensor else BLOCK_ELEMENTS
        for start in range(0, size, max(step, 1)):
            block = _slice(whole, start, min(start + step, size))
            yield start, method.combine(block, statistics, merge.coefficients)

    def _operands(self, name: str, merge: _Merge) -> tuple[Operands, tuple[Tensor, ...]]:
        """A tensor's numbers, and those of them that are in memory for this use only."""
        base = (self.pool.base,) if merge.method.needs.base else ()
        found = [self._flat(checkpoint, name) for checkpoint in (*base, *merge.models)]
        tensors = [tensor for tensor, _ in found]
        whole = Operands(
            name=name,
            base=tensors[0] if base else None,
            models=tuple(tensors[len(base) :]),
            model_hashes=merge.hashes,
            offset=0,
            shape=self.pool.layout.shapes[name],
        )
        return whole, tuple(tensor for tensor, stays in found if not stays)

    def _flat(self, checkpoint: Checkpoint, name: str) -> tuple[Tensor, bool]:
        """A checkpoint's tensor, and whether it stays in memory, or is a view of a file."""
        on_cpu = self.device.type == "cpu"
        if isinstance(checkpoint, Adapter) and name not in {*checkpoint.updates, *checkpoint.own}:
            checkpoint = checkpoint.base
        if isinstance(checkpoint, Adapter) and name in checkpoint.updates and not on_cpu:
            return self._changed(checkpoint, name).reshape(-1), False
        if on_cpu and name in checkpoint.made:
            (made,), stays = self.kept.get(
                (checkpoint.name, name),
                lambda: (checkpoint.tensor(name).reshape(-1),),
                is_cheap=True,
            )
            return made, stays
        key = checkpoint.name, name
        return self._on_device(key, lambda: checkpoint.tensor(name).reshape(-1)), True

    def _changed(self, adapter: Adapter, name: str) -> Tensor:
        """A tensor that an adapter changes, on the device: only what it is made of stays there."""
        owner: Checkpoint = adapter if name in adapter.own else adapter.base
        start = self._on_device((owner.name, name), lambda: adapter.start(name).reshape(-1))
        update = adapter.updates[name]
        factors = [
            self._on_device((adapter.name, key), functools.partial(adapter.read_factor, key))
            for key in update.keys
        ]
        return update.apply(start.view(self.pool.layout.shapes[name]), *factors)

    def _on_device(self, key: tuple[str, str], read: Callable[[], Tensor]) -> Tensor:
        if key not in self._resident:
            self._resident[key] = read().to(self.device)
        return self._resident[key]

    def _prepared(self, whole: Operands, merge: _Merge) -> tuple[Statistics, bool]:
        """Statistics of a tensor, and whether they stay in memory."""
        key = whole.name, merge.key
        return self.kept.get(key, lambda: merge.method.prepare(whole, merge.mask_seed))

    def _survey(self, merge: _Merge) -> Statistics:
        """What the method says of all tensors, with these coefficients."""
        key = merge.key, tuple(sorted(merge.coefficients.items()))

        def tensors() -> Iterable[tuple[Operands, Statistics]]:
            for name in self.pool.layout.places:
                whole, _ = self._operands(name, merge)
                statistics, _ = self._prepared(whole, merge)
                yield whole, statistics

        if key not in self._surveys:
            method = cast(WholeModelMethod, merge.method)
            self._surveys[key] = method.survey(tensors, merge.coefficients)
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
