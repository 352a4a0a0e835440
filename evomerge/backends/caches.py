"""Keys and values of rows behind shared trunks, as transformers' models read and write them.

This module imports transformers: import it where a model is run.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, shape [batch, heads, tokens, head_dim]."""


def trunk_cache(above: KeysValues) -> DynamicCache:
    """The cache of one row behind trunks, which keeps what is new; `keys_values` has all of it."""
    return _cache(above, 1, DynamicLayer)


def rows_cache(above: KeysValues, num_rows: int) -> DynamicCache:
    """The cache of rows that are run once, and of which nothing is kept."""
    return _cache(above, num_rows, _Passing)


def keys_values(cache: DynamicCache) -> KeysValues:
    """What a cache holds."""
    return [(layer.keys, layer.values) for layer in cast(list[DynamicLayer], cache.layers)]  # type: ignore[misc]


def _cache(above: KeysValues, num_rows: int, layer_type: type[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in above:
        layer = cast(Any, layer_type)()
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        # Views: a layer copies them once, beside what is new.
        layer.keys = keys.expand(num_rows, -1, -1, -1)
        layer.values = values.expand(num_rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache


class _Passing(DynamicLayer):
    """Gives a layer what it sees and forgets what is new."""

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """See transformers' `CacheLayerMixin`."""
        return (
            torch.cat([self.keys, key_states], dim=-2),
            torch.cat([self.values, value_states], dim=-2),
        )


class GrowingCache(DynamicCache):
    """Rows that grow by a token at a time, in memory that is taken once.

    Prompts of different lengths are written some rows at a time, answers to all: `turn_to` says
    which rows come next.

    Args:
        trunk: Keys and values that every row begins with; empty where there are none.
        num_rows: Rows.
        num_prompt: Tokens of a prompt with its padding, the trunk included.
        most_new: Tokens of an answer at most.
    """

    def __init__(self, trunk: KeysValues, num_rows: int, num_prompt: int, most_new: int) -> None:
        super().__init__()
        self._shape = num_rows, num_prompt, most_new
        self._window = 0, num_rows, 0
        # transformers calls it for each layer that comes.
        self.layer_class_to_replicate = cast(Any, self._new_layer)
        for keys, values in trunk:
            self._window = 0, num_rows, keys.shape[-2]
            layer = self._new_layer()
            layer.begin_with(keys, values)
            self.layers.append(layer)

    def turn_to(self, low: int, high: int, length: int) -> None:
        """Read and write some rows, as if each held so many tokens."""
        self._window = low, high, length
        for layer in self._growing:
            layer.window = self._window

    def keep(self, rows: Tensor) -> None:
        """Let rows leave, or take them several times, in this order."""
        for layer in self._growing:
            here = rows.to(layer.keys.device)
            layer.keys, layer.values = layer.keys[here], layer.values[here]

    @property
    def _growing(self) -> list[_Growing]:
        return cast(list[_Growing], self.layers)

    def _new_layer(self) -> _Growing:
        return _Growing(self._shape, self._window)


class _Growing(DynamicLayer):
    """A layer of a `GrowingCache`.

    Attributes:
        window: The first row that is read and written, the row behind the last, and the tokens
            that they hold.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, shape: tuple[int, int, int], window: tuple[int, int, int]) -> None:
        cast(Any, super()).__init__()
        self._shape = shape
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """See transformers' `CacheLayerMixin`."""
        num_rows, num_prompt, most_new = self._shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_empty(num_rows, states.shape[1], num_prompt + most_new, states.shape[3])
            for states in (key_states, value_states)
        )
        # Between a short prompt and its answer stands what nobody writes. It is not seen, and
        # counts 0 times what it holds, which must be a number.
        start = self.window[2]
        self.keys[:, :, start:num_prompt] = 0.0
        self.values[:, :, start:num_prompt] = 0.0
        self.is_initialized = True

    def begin_with(self, keys: Tensor, values: Tensor) -> None:
        """Let every row begin with a trunk."""
        self.lazy_initialization(keys, values)
        self.keys[:, :, : keys.shape[-2]] = keys
        self.values[:, :, : values.shape[-2]] = values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """See transformers' `CacheLayerMixin`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        low, high, start = self.window
        end = start + key_states.shape[-2]
        self.keys[low:high, :, start:end] = key_states
        self.values[low:high, :, start:end] = value_states
        self.window = low, high, end
        return self.keys[low:high, :, :end], self.values[low:high, :, :end]

    def get_seq_length(self) -> int:
        """See transformers' `CacheLayerMixin`."""
        return self.window[2]
