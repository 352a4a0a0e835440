"""Recipe and pool to weights: one pass over the pool, block by block, one cast at the end."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evomerge.errors import CandidateError, SpoiltError
from evomerge.kernels import FUSED_FROM
from evomerge.kernels.support import launching_on
from evomerge.merge.device import Launches
from evomerge.merge.experts import conversion_of, one_by_one
from evomerge.merge.host import Passes
from evomerge.merge.kept import Kept, size_bytes
from evomerge.merge.merges import Merges
from evomerge.merge.operands import DeviceSource, HostSource, Ready, Source
from evomerge.merge.plan import Merge, MergeKey, Step, plan
from evomerge.merge.residence import Residence
from evomerge.methods import Operands, Statistics
from evomerge.pool import Pool
from evomerge.recipe import Recipe

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

OURS = "evomerge."
WATCHED = 2
"""Builds with a method of another package in which its operands are looked after."""

MOST_SURVEYS = 8
"""Results about the whole model that are kept beside those of a candidate's parts."""


class Engine:
    """Builds candidates of one pool.

    What does not depend on a candidate's coefficients is computed once and kept while it fits
    the budget; what has no room is computed again when it is needed.

    Args:
        pool: The checkpoints.
        device: Where to compute.
        statistics_budget_bytes: Memory for what `Method.prepare` returns, and, where that leaves
            some on a CPU, for tensors that are no view of a file.
        fused_from: Numbers in a tensor from which on it is merged by a compiled loop, where there
            is one for it; on a CPU the result is the same.
        residence: Where the pool's tensors lie, if it is not the CPU; by default all of them come
            to stay on the device.
        elsewhere: Where some of them lie instead, by name, on other devices of the kind; these are
            merged there.
    """

    def __init__(
        self,
        pool: Pool,
        device: torch.device | None = None,
        statistics_budget_bytes: int = 1 << 30,
        fused_from: int = FUSED_FROM,
        residence: Residence | None = None,
        elsewhere: Mapping[str, Residence] | None = None,
    ) -> None:
        self.pool = pool
        self.fused_from = fused_from
        self.device = device or torch.device("cpu")
        self.kept = Kept(statistics_budget_bytes)
        if residence is None and self.device.type != "cpu":
            residence = Residence(self.device)
        self.residence = residence
        self.elsewhere = elsewhere or {}
        self._source: Source = (
            HostSource(pool, self.kept)
            if residence is None
            else DeviceSource(pool, residence, self.elsewhere)
        )
        self._builds: Counter[str] = Counter()
        self._watched: set[MergeKey] = set()
        self._surveys: OrderedDict[tuple[MergeKey, tuple[Any, ...]], Statistics] = OrderedDict()

    @torch.no_grad()
    def write_into(self, state: dict[str, Tensor], recipe: Recipe) -> None:
        """Overwrite a loaded model's tensors with the recipe's model.

        Args:
            state: The model's own tensors by name; aliases of tied tensors may be among them and
                are left alone, and what is not among them is not made.
            recipe: What to build.

        Raises:
            CandidateError: The coefficients give no model, or not a finite one.
        """
        steps = [(name, merge) for name, merge in self._plan(recipe) if name in state]
        with self._merges() as merges:
            for ready in self._source.stream(steps):
                self._merge_into(state[ready.name].data.view(-1), ready, merges)
        self.kept.end_build()

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
        merges_by_name = dict(self._plan(recipe))
        dtype = TORCH_DTYPES[recipe.dtype]

        @torch.no_grad()
        def build(name: str) -> Tensor:
            result = torch.empty(self.pool.layout.shapes[name], dtype=dtype, device=self.device)
            with self._merges() as merges:
                for ready in self._source.stream([(name, merges_by_name[name])]):
                    self._merge_into(result.view(-1), ready, merges)
            return result.cpu()

        return build

    def _merges(self) -> Merges:
        return Passes() if self.residence is None else Launches()

    def _plan(self, recipe: Recipe) -> list[Step]:
        """What makes each tensor; what must be known of all tensors is, from here on."""
        self.kept.begin_build()
        steps = plan(self.pool, recipe)
        self._watch({id(merge): merge for _, merge in steps}.values())
        while len(self._surveys) > MOST_SURVEYS:
            self._surveys.popitem(last=False)
        merges = {id(merge): merge for _, merge in steps}
        for key, merge in merges.items():
            if merge.method.needs.whole_model:
                merges[key] = replace(merge, survey=self._survey(merge))
        return [(name, merges[id(merge)]) for name, merge in steps]

    def _watch(self, merges: Iterable[Merge]) -> None:
        """Have the operands of another package's method looked after, in its first builds."""
        self._watched = set()
        for merge in merges:
            kind = merge.part.method.kind
            if not type(merge.method).__module__.startswith(OURS) and self._builds[kind] < WATCHED:
                self._watched.add(merge.key)
        for kind in {merge.part.method.kind for merge in merges}:
            self._builds[kind] += 1

    def _merge_into(self, target: Tensor, ready: Ready, merges: Merges) -> None:
        """Merge a tensor into a flat target, in a pass where there is one, else block by block."""
        merge, whole = ready.merge, ready.whole
        before = digest(whole) if merge.key in self._watched else None
        with launching_on(whole.device):
            self._merge_one(target, ready, merges)
        if before is not None and digest(whole) != before:
            raise SpoiltError(
                f"method {merge.part.method.kind!r} has changed its operands ({ready.name}); "
                "it must leave them as they are"
            )

    def _merge_one(self, target: Tensor, ready: Ready, merges: Merges) -> None:
        is_single = ready.merge.part.fused_experts == "single"
        conversion = conversion_of(self.pool, ready.name) if is_single else None
        if conversion is None:
            self._merge_whole(target, ready, merges)
            return

        def merge(piece: Tensor, operands: Operands) -> None:
            # A part must be done before the tensor is put together.
            with self._merges() as of_part:
                self._merge_whole(piece, replace(ready, whole=operands), of_part)

        one_by_one(conversion, ready.whole, target, merge)

    def _merge_whole(self, target: Tensor, ready: Ready, merges: Merges) -> None:
        merge, whole = ready.merge, ready.whole
        statistics, is_kept = self._prepared(whole, merge)
        if len(target) >= self.fused_from:
            terms = merge.method.terms(whole, statistics, merge.coefficients)
            held_bytes = size_bytes(ready.held if is_kept else ready.held + statistics)
            if terms is not None and merges.merge(ready.name, terms, target, held_bytes):
                return
        for start, block in self._combine(whole, statistics, merge, merges.block_elements):
            merges.write(ready.name, target[start : start + block.numel()], block)

    def _combine(
        self, whole: Operands, statistics: Statistics, merge: Merge, block_elements: int
    ) -> Iterator[tuple[int, Tensor]]:
        method = merge.method
        statistics += method.settle(whole, statistics, merge.coefficients)
        statistics += _brought(merge.survey, whole.device)
        size = whole.models[0].numel()
        step = size if method.needs.whole_tensor else block_elements
        for start in range(0, size, max(step, 1)):
            block = _slice(whole, start, min(start + step, size))
            merged = method.combine(block, statistics, merge.coefficients)
            if merged.shape != block.models[0].shape or not merged.is_floating_point():
                raise CandidateError(
                    f"method {merge.part.method.kind!r} gives {merged.dtype} of shape "
                    f"{tuple(merged.shape)} for a block of {block.models[0].numel()} numbers "
                    f"({whole.name}); expected a float for each"
                )
            yield start, merged

    def _prepared(self, whole: Operands, merge: Merge) -> tuple[Statistics, bool]:
        """Statistics of a tensor, and whether they stay in memory."""
        key = whole.name, merge.key
        return self.kept.get(key, lambda: merge.method.prepare(whole, merge.mask_seed))

    def _survey(self, merge: Merge) -> Statistics:
        """What the method says of all tensors, with these coefficients."""
        key = merge.key, tuple(sorted(merge.coefficients.items()))

        def tensors() -> Iterable[tuple[Operands, Statistics]]:
            for ready in self._source.stream((name, merge) for name in self.pool.layout.places):
                with launching_on(ready.whole.device):
                    statistics, _ = self._prepared(ready.whole, merge)
                yield _on(ready.whole, self.device), _brought(statistics, self.device)

        if key not in self._surveys:
            self._surveys[key] = merge.method.survey(tensors, merge.coefficients)
        return self._surveys[key]


def digest(whole: Operands) -> bytes:
    """A hash of all numbers of the operands."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in (*whole.models, *(() if whole.base is None else (whole.base,))):
        found.update(tensor.contiguous().cpu().view(torch.uint8).numpy())
    return found.digest()


def _on(whole: Operands, device: torch.device) -> Operands:
    """Operands on a device: themselves, where they lie there."""
    if whole.device == device:
        return whole
    base = None if whole.base is None else whole.base.to(device)
    return replace(whole, base=base, models=tuple(model.to(device) for model in whole.models))


def _brought(statistics: Statistics, device: torch.device) -> Statistics:
    """Statistics on a device; what was left on the CPU stays there."""
    return tuple(each if each.device.type == "cpu" else each.to(device) for each in statistics)


def _slice(whole: Operands, start: int, stop: int) -> Operands:
    return Operands(
        name=whole.name,
        base=None if whole.base is None else whole.base[start:stop],
        models=tuple(model[start:stop] for model in whole.models),
        model_hashes=whole.model_hashes,
        offset=start,
        shape=whole.shape,
    )
