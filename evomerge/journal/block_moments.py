"""Moments by block, in little room: a long search has hundreds of thousands of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping

from evomerge.score import Moments


class BlockMoments(Mapping[int, dict[str, Moments]]):
    """For each block of a split each objective's (documents, mean, squared deviations)."""

    __slots__ = ("_names", "_num_blocks", "_numbers", "_values")

    def __init__(self) -> None:
        self._num_blocks = 0
        # One entry for each block and objective, in order of arrival.
        self._numbers = array("q")
        self._names: list[str] = []
        self._values = array("d")

    def __getitem__(self, number: int) -> dict[str, Moments]:
        try:
            first = self._numbers.index(number)
        except ValueError:
            raise KeyError(number) from None
        found = {}
        # A block's entries follow each other.
        for place in range(first, len(self._numbers)):
            if self._numbers[place] != number:
                break
            count, mean, squares = self._values[3 * place : 3 * place + 3]
            found[self._names[place]] = (int(count), mean, squares)
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(dict.fromkeys(self._numbers))

    def __len__(self) -> int:
        return self._num_blocks

    def __contains__(self, number: object) -> bool:
        return number in self._numbers

    def add(self, number: int, moments: Mapping[str, Moments]) -> None:
        """Take in a block; the first that comes counts."""
        if number in self._numbers:
            return
        self._num_blocks += bool(moments)
        for name, values in moments.items():
            self._numbers.append(number)
            self._names.append(name)
            self._values.extend(values)

    def remove(self, number: int) -> None:
        """Forget a block, if it is there."""
        kept = [place for place, known in enumerate(self._numbers) if known != number]
        self._values = array(
            "d", (v for place in kept for v in self._values[3 * place : 3 * place + 3])
        )
        self._names = [self._names[place] for place in kept]
        self._numbers = array("q", (self._numbers[place] for place in kept))
        self._num_blocks = len(set(self._numbers))
