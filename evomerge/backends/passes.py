"""Forward passes of a transformers model over rows: who sees whom, and where its head is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.backends.rotary import forget_lengths, most_alike
from evomerge.backends.sizes import TokenSize
from evomerge.backends.trees import Row
from evomerge.errors import CandidateError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Way = Literal["trees_by_type", "trees_in_window", "trees", "plain", "plain_whole"]
"""How a model is run:

- "trees_by_type": rows of trees behind trunks; each type of layer is told what its tokens see;
- "trees_in_window": so too; all layers have one sliding window;
- "trees": so too; all layers see everything above;
- "plain": a row is one sequence, with those that it begins with; so are sequences run that are too
  long for shared beginnings;
- "plain_whole": each sequence is run by itself, beside others of its length, with the head over all
  of it; texts are written one by one.
"""

WAYS: tuple[Way, ...] = ("trees_by_type", "trees_in_window", "trees", "plain", "plain_whole")
"""From the one that runs the fewest tokens; a model is run in the first that is exact."""


@dataclass(frozen=True)
class Inputs:
    """What a pass reads.

    Attributes:
        ids: Shape [B, L], int64.
        positions: Shape [B, L], int64.
        sees: Shape [B, L, T], bool: which of the T tokens, those in the cache first, each sees,
            sliding windows apart.
        seen: Shape [B, T] or [1, T], int64: their positions.
        places: Shape [n], int64: of the B * L tokens, which the head reads.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    seen: Tensor
    places: Tensor


class Runner:
    """A model and the way that it is run.

    Args:
        model: A causal language model; its weights and its path may change between passes.
        way: How it is run.

    Attributes:
        at_once: Tokens whose keys and values have room in one layer at a time, for each that has
            room in all layers of the base.
        window: Of its sliding layers, where it has some.
    """

    def __init__(self, model: PreTrainedModel, way: Way) -> None:
        self.model = model
        self.way = way
        config: Any = model.config.get_text_config(decoder=True)
        self.at_once = TokenSize.of(model.config).at_once(int(config.num_hidden_layers))
        # A path changes the list, and no type comes to it.
        self._types = tuple(sorted(set(getattr(config, "layer_types", None) or ())))
        self.window: int | None = getattr(config, "sliding_window", None)
        self._most_alike = most_alike(model.config)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    @property
    def has_trees(self) -> bool:
        """Whether rows are trees behind trunks."""
        return self.way.startswith("trees")

    def shares(self, longest: int) -> bool:
        """Whether rows may be trees behind trunks.

        Args:
            longest: Tokens of the longest sequence, its answer included.
        """
        return self.has_trees and self.is_alike(longest)

    def is_alike(self, longest: int) -> bool:
        """Whether what a token sees says what it is: nothing behind it, nor a pass's length.

        Args:
            longest: Tokens of the longest sequence.
        """
        if self.way == "plain_whole":
            return False
        return self._most_alike is None or longest <= self._most_alike

    def logits(self, inputs: Inputs, cache: Any = None) -> Tensor:
        """The logits of a pass at its places, shape [n, vocabulary], in the model's dtype.

        Args:
            inputs: What is read; with a way of trees.
            cache: What the model reads and writes as transformers' cache.
        """
        if self._most_alike is not None:
            forget_lengths(self.model)
        with head_at(self.model, inputs.places):
            output = cast(Any, self.model)(
                input_ids=inputs.ids,
                attention_mask=self._mask(inputs),
                position_ids=inputs.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return cast(Tensor, output.logits[0])

    def plain_logits(self, ids: Tensor, places: Tensor) -> Tensor:
        """The logits of rows that are sequences, padded behind: shape [n, vocabulary].

        Args:
            ids: Shape [B, L].
            places: Of the B * L tokens, which are read.
        """
        model = cast(Any, self.model)
        if self._most_alike is not None:
            forget_lengths(self.model)
        if self.way == "plain_whole":
            whole: Tensor = model(input_ids=ids, use_cache=False).logits
            return whole.reshape(-1, whole.shape[-1])[places]
        with head_at(self.model, places):
            return cast(Tensor, model(input_ids=ids, use_cache=False).logits[0])

    def _mask(self, inputs: Inputs) -> Tensor | dict[str, Tensor]:
        full = self._as_mask(inputs.sees)
        if self.way == "trees":
            return full
        windowed = full
        if self.window is not None:
            first = inputs.positions[:, :, None] - self.window
            windowed = self._as_mask(inputs.sees & (inputs.seen[:, None, :] > first))
        if self.way == "trees_in_window":
            return windowed
        return {
            name: full if name == "full_attention" else windowed
            for name in self._types or ("full_attention",)
        }

    def _as_mask(self, sees: Tensor) -> Tensor:
        """Shape [B, 1, L, T], as the model's attention takes it."""
        if self.model.config._attn_implementation == "sdpa":
            return sees[:, None]
        # Eager attention adds it.
        least = torch.finfo(self.model.dtype).min
        zeros = torch.zeros((), dtype=self.model.dtype, device=sees.device)
        return torch.where(sees, zeros, least)[:, None]


def tree_mask(positions: Tensor, ends: Tensor, num_seen: int) -> tuple[Tensor, Tensor]:
    """Which tokens each sees, shape [B, L, num_seen + L], and their positions.

    Args:
        positions: Shape [B, L].
        ends: Shape [B, L]: the place behind what is below each token.
        num_seen: Tokens of the trunks, which all see.
    """
    num_rows, longest = positions.shape
    order = torch.arange(longest, device=positions.device)
    below = (order[:, None] >= order) & (order[:, None] < ends[:, None, :])
    trunk = torch.ones((), dtype=torch.bool, device=positions.device)
    sees = torch.cat([trunk.expand(num_rows, longest, num_seen), below], dim=2)
    trunk_positions = torch.arange(num_seen, device=positions.device).expand(num_rows, -1)
    return sees, torch.cat([trunk_positions, positions], dim=1)


def padded(rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids, positions and ends of rows, shape [B, L]: padded behind, padding sees itself."""
    longest = max(map(len, rows))
    ids, positions = (np.zeros((len(rows), longest), dtype=np.int64) for _ in range(2))
    ends = np.tile(np.arange(1, longest + 1), (len(rows), 1))
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row.tokens
        positions[number, : len(row)] = row.positions
        ends[number, : len(row)] = row.ends
    return ids, positions, ends


def inputs_of(rows: Sequence[Row], num_seen: int, device: torch.device) -> Inputs:
    """The pass over some rows behind trunks; the head reads the last token of each."""
    ids, positions, ends = (torch.from_numpy(array).to(device) for array in padded(rows))
    sees, seen = tree_mask(positions, ends, num_seen)
    last = [number * ids.shape[1] + len(row) - 1 for number, row in enumerate(rows)]
    return Inputs(ids, positions, sees, seen, torch.tensor(last, device=device))


@contextmanager
def head_at(model: PreTrainedModel, places: Tensor) -> Iterator[None]:
    """Let the head read some places of the flattened batch alone: its output is [1, n, V]."""

    def select(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1])[places][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def require_finite(values: Sequence[float], what: str) -> None:
    """Refuse what a broken candidate gives.

    Raises:
        CandidateError: A value is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise CandidateError(f"a {what} is not finite: the model's output is NaN or infinite")
