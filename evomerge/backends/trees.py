"""Sequences of tokens as trees: what they share is run once.

Sequences that begin alike share that beginning. A long shared beginning is a trunk: it is run
alone, and its keys and values are kept for everything behind it. What is left is packed into rows;
a row is a forest in preorder, whose tokens see the trunks above it, the tokens above them in their
tree, and themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Read:
    """A sequence of tokens and what is read of its predictions.

    Attributes:
        tokens: One token or more.
        first: The first position whose prediction is read; all behind it are.
    """

    tokens: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Row:
    """A forest of tokens, each behind the one above it and before what is not below it.

    Attributes:
        tokens: Shape [n].
        positions: Shape [n]: how many tokens stand above each, trunks included.
        ends: Shape [n]: the place behind the last token below each. Token i of the row sees token
            j of it where j <= i < ends[j].
        places: Shape [reads]: which predictions are read.
        slots: Shape [reads]: for which of all sequences' reads, numbered one sequence after
            another.
        owners: Shape [n]: the first sequence that a token belongs to.
    """

    tokens: Integers
    positions: Integers
    ends: Integers
    places: Integers
    slots: Integers
    owners: Integers

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class Branch:
    """A trunk and the rows that see it.

    Attributes:
        trunk: A row of one sequence; None where the rows see nothing else.
        above: The number of the branch whose trunk this one sees; -1 where there is none.
        num_above: Tokens of the trunks above this one.
        rows: What is behind the trunk and behind no other below it.
    """

    trunk: Row | None
    above: int
    num_above: int
    rows: list[Row] = field(default_factory=list)

    @property
    def num_seen(self) -> int:
        """Tokens that every row sees."""
        return self.num_above + (0 if self.trunk is None else len(self.trunk))


def above_of(branches: Sequence[Branch], number: int) -> set[int]:
    """Numbers of the branches above one; -1 among them."""
    above = set()
    while number >= 0:
        number = branches[number].above
        above.add(number)
    return above


def held_at(branches: Sequence[Branch], number: int) -> int:
    """Tokens in the caches of the trunks that a branch needs: each holds what is above it too."""
    needed = [branches[each] for each in above_of(branches, number) - {-1} | {number}]
    return sum(branch.num_seen for branch in needed if branch.trunk is not None)


def tokens_of(branches: Sequence[Branch], num_sequences: int) -> list[int]:
    """Tokens that each sequence adds to what is run for those before it."""
    counts = np.zeros(num_sequences, dtype=np.int64)
    for branch in branches:
        for row in (*([] if branch.trunk is None else [branch.trunk]), *branch.rows):
            np.add.at(counts, row.owners, 1)
    result: list[int] = counts.tolist()
    return result
