"""Log-likelihoods of continuations by a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.backends.batches import (
    LEAST_FILLED,
    TRUNK_REMEDY,
    Limits,
    batches,
    halved_once,
    told_out_of_memory,
)
from evomerge.backends.passes import Inputs, Runner, padded, require_finite, tree_mask
from evomerge.backends.plan import LEAST_SAVED, ROW_TOKENS, plan_alone, plan_chains, plan_trees
from evomerge.backends.trees import Branch, Read, Row, above_of, held_at, tokens_of
from evomerge.score.backend import Continuation, LogLikelihood

if TYPE_CHECKING:
    from evomerge.backends.caches import KeysValues


CACHED_NUMBERS = 1 << 19
"""Of float32, that a processor keeps at hand."""

Slots = NDArray[np.int64]


@dataclass(frozen=True)
class _Batch:
    """Rows of a branch, ready to be run.

    Attributes:
        ids: Shape [B, L], int64, padded behind.
        positions: Shape [B, L].
        ends: Shape [B, L]: the place behind what is below each token; padding sees itself.
        places: By row: places in it that are read, ascending, each once.
        reads: By row: for each read, which of the places it is.
        slots: By row: the read's number.
        is_plain: Whether each row is one sequence.
    """

    ids: Tensor
    positions: Tensor
    ends: Tensor
    places: list[Slots]
    reads: list[Slots]
    slots: list[Slots]
    is_plain: bool


@dataclass(frozen=True)
class _Sink:
    """What is read, by the read's number.

    Attributes:
        values: Log-likelihoods, nats.
        greedy: Whether the token is the likeliest.
    """

    values: NDArray[np.float64]
    greedy: NDArray[np.bool_]


class PreparedLogLikelihoods:
    """Continuations, made ready for one model.

    Args:
        runner: The model.
        requests: What is asked.
        limits: What a batch may take.
        row_tokens: See `plan_trees`.
        least_saved: See `plan_trees`.
    """

    def __init__(
        self,
        runner: Runner,
        requests: Sequence[Continuation],
        limits: Limits,
        row_tokens: int = ROW_TOKENS,
        least_saved: int = LEAST_SAVED,
    ) -> None:
        self._runner = runner
        reads = [Read(request.read, len(request.context) - 1) for request in requests]
        longest = max(len(read.tokens) for read in reads)
        self._shares = runner.shares(longest)
        if self._shares:
            self.branches = plan_trees(reads, row_tokens, least_saved)
        elif runner.is_alike(longest):
            self.branches = plan_chains(reads)
        else:
            self.branches = plan_alone(reads)
        self.num_tokens = tokens_of(self.branches, len(reads))
        self._trunks = [
            None if branch.trunk is None else self._ready([branch.trunk])
            for branch in self.branches
        ]
        least_filled = LEAST_FILLED if runner.is_alike(longest) else 1.0
        self._batches = [
            [
                self._ready(rows)
                for rows in batches(
                    branch.rows,
                    branch.num_seen,
                    limits,
                    # Keys and values of rows are copied a layer at a time, and forgotten; the
                    # trunks lie beside them.
                    cached=max(0, limits.cached - held_at(self.branches, number)) * runner.at_once,
                    least_filled=least_filled,
                )
            ]
            for number, branch in enumerate(self.branches)
        ]
        self._targets = np.concatenate([np.array(r.targets, dtype=np.int64) for r in requests])
        self._starts = np.cumsum([0, *(len(r.targets) for r in requests)])[:-1]

    def answer(self) -> list[LogLikelihood]:
        """See `Prepared`."""
        sink = _Sink(np.zeros(len(self._targets)), np.zeros(len(self._targets), dtype=bool))
        kept: dict[int, KeysValues] = {-1: []}
        with torch.no_grad():
            for number, branch in enumerate(self.branches):
                # Preorder: no other trunk is wanted any more.
                kept = {n: held for n, held in kept.items() if n in above_of(self.branches, number)}
                above = kept[branch.above]
                trunk = self._trunks[number]
                if trunk is not None:
                    with told_out_of_memory(TRUNK_REMEDY):
                        above = self._run_trunk(branch, trunk, above, sink)
                kept[number] = above
                for batch in self._batches[number]:
                    run = partial(self._run_rows, branch, batch, above, sink)
                    halved_once(run, range(len(batch.ids)))
        require_finite(sink.values.tolist(), "log-likelihood")
        values = np.add.reduceat(sink.values, self._starts)
        is_greedy = np.logical_and.reduceat(sink.greedy, self._starts)
        return [
            LogLikelihood(float(value), bool(best))
            for value, best in zip(values, is_greedy, strict=True)
        ]

    def _ready(self, rows: Sequence[Row]) -> _Batch:
        unique = [np.unique(row.places, return_inverse=True) for row in rows]
        ids, positions, ends = (
            torch.from_numpy(array).to(self._runner.device) for array in padded(rows)
        )
        return _Batch(
            ids=ids,
            positions=positions,
            ends=ends,
            places=[places for places, _ in unique],
            reads=[reads for _, reads in unique],
            slots=[row.slots for row in rows],
            is_plain=all((row.ends == len(row)).all() and row.positions[0] == 0 for row in rows),
        )

    def _run_trunk(
        self, branch: Branch, batch: _Batch, above: KeysValues, sink: _Sink
    ) -> KeysValues:
        from evomerge.backends.caches import keys_values, trunk_cache

        cache = trunk_cache(above)
        self._run(batch, range(1), branch.num_above, cache, sink)
        return keys_values(cache)

    def _run_rows(
        self, branch: Branch, batch: _Batch, above: KeysValues, sink: _Sink, rows: Sequence[int]
    ) -> None:
        from evomerge.backends.caches import rows_cache

        cache = rows_cache(above, len(rows)) if above else None
        self._run(batch, rows, branch.num_seen, cache, sink)

    def _run(
        self, batch: _Batch, rows: Sequence[int], num_seen: int, cache: Any, sink: _Sink
    ) -> None:
        """Run some rows of a batch, and put what is read where it belongs."""
        part = slice(rows[0], rows[-1] + 1)
        ids, positions, ends = batch.ids[part], batch.positions[part], batch.ends[part]
        longest = ids.shape[1]
        places, reads, slots = [], [], []
        num_places = 0
        for place, row in enumerate(rows):
            places.append(batch.places[row] + place * longest)
            reads.append(batch.reads[row] + num_places)
            slots.append(batch.slots[row])
            num_places += len(batch.places[row])
        device = ids.device
        at = torch.from_numpy(np.concatenate(places)).to(device)
        if self._shares and (cache is not None or not batch.is_plain):
            sees, seen = tree_mask(positions, ends, num_seen)
            logits = self._runner.logits(Inputs(ids, positions, sees, seen, at), cache)
        else:
            logits = self._runner.plain_logits(ids, at)
        self._read(logits.float(), np.concatenate(reads), np.concatenate(slots), sink)

    def _read(self, logits: Tensor, reads: Slots, slots: Slots, sink: _Sink) -> None:
        """Put what some logits say into the sink.

        Args:
            logits: Shape [places, V], float32.
            reads: Shape [n]: the place of each read.
            slots: Shape [n]: its number.
            sink: Where it belongs.
        """
        at = torch.from_numpy(reads).to(logits.device)
        targets = torch.from_numpy(self._targets[slots]).to(logits.device)
        wanted = logits[at, targets]
        norms, largest = _norms(logits)
        sink.values[slots] = (wanted - norms[at]).cpu().numpy()
        is_largest = wanted == largest[at]
        # Of equal ones the first is taken, and to look for it takes longer than all else here.
        ties = is_largest.nonzero()[:, 0]
        is_largest[ties] = logits[at[ties]].argmax(dim=-1) == targets[ties]
        sink.greedy[slots] = is_largest.cpu().numpy()


def _norms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of the sum of exponentials and the largest logit of each row.

    On a CPU a few rows at a time: what is made of them stays in its cache.
    """
    largest = logits.amax(dim=-1)
    size = len(logits)
    if logits.device.type == "cpu":
        size = CACHED_NUMBERS // logits.shape[-1]
    size = max(1, size)
    sums = [
        (logits[low : low + size] - largest[low : low + size, None]).exp_().sum(dim=-1)
        for low in range(0, len(logits), size)
    ]
    return torch.cat(sums).log_() + largest if sums else largest, largest
