"""Sequences of tokens into branches and rows: what they share is planned to be run once."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from evomerge.backends.trees import Branch, Integers, Read, Row

ROW_TOKENS = 64
"""Tokens of a packed row, besides what its sequences all begin with."""

LEAST_SAVED = 128
"""Tokens that a trunk must save: to run it alone costs about as much as so many."""


def plan_trees(
    reads: Sequence[Read], row_tokens: int = ROW_TOKENS, least_saved: int = LEAST_SAVED
) -> list[Branch]:
    """Plan sequences: a function of them alone.

    Args:
        reads: One or more.
        row_tokens: Tokens of a row, besides what its sequences begin with; 0: each sequence has a
            row of its own.
        least_saved: Tokens that a trunk of its own must save.

    Returns:
        Branches in preorder: behind each stands what is below it.
    """
    planner = _Planner(_hosts(reads), row_tokens, least_saved)
    # Depth first, so that few trunks are kept at a time.
    todo = [(_Range(0, len(planner.hosts)), planner.open(None, -1))]
    while todo:
        part, branch = todo.pop()
        todo += reversed(planner.cut(part, branch))
    return planner.branches()


def plan_chains(reads: Sequence[Read]) -> list[Branch]:
    """Plan sequences so that a row is one of them; one that another begins with is run with it."""
    return plan_trees(reads, 0, sys.maxsize)


def plan_alone(reads: Sequence[Read]) -> list[Branch]:
    """Plan sequences so that each has a row of its own; only equal ones are one."""
    hosts = _hosts(reads, absorb=False)
    return [Branch(None, -1, 0, [_Forest(0, [host]).row() for host in hosts])]


@dataclass(frozen=True)
class _Span:
    """What a sequence reads.

    Attributes:
        number: The sequence's.
        first: The first position that is read.
        end: The position behind the last.
        slot: The number of the first read among those of all sequences.
    """

    number: int
    first: int
    end: int
    slot: int


@dataclass(frozen=True)
class _Host:
    """A sequence that no other begins with.

    Attributes:
        tokens: Its tokens.
        spans: What is read of it, by itself and by those that it begins with.
    """

    tokens: tuple[int, ...]
    spans: list[_Span]


def _hosts(reads: Sequence[Read], *, absorb: bool = True) -> list[_Host]:
    """Sequences, sorted; with `absorb` those alone that no other begins with."""
    spans: dict[tuple[int, ...], list[_Span]] = {}
    slot = 0
    for number, read in enumerate(reads):
        span = _Span(number, read.first, len(read.tokens), slot)
        spans.setdefault(read.tokens, []).append(span)
        slot += span.end - span.first
    hosts: list[_Host] = []
    # Backwards: what a sequence begins with is sorted right before it, or before one like it.
    for tokens in sorted(spans, reverse=True):
        if absorb and hosts and hosts[-1].tokens[: len(tokens)] == tokens:
            hosts[-1].spans.extend(spans[tokens])
        else:
            hosts.append(_Host(tokens, spans[tokens]))
    return hosts[::-1]


def _num_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin alike with."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))


@dataclass(frozen=True)
class _Range:
    """Neighbours among the sorted hosts."""

    low: int
    high: int


class _Forest:
    """A row that is being made: hosts behind a trunk.

    Args:
        start: Tokens of the trunks above it.
        hosts: Sorted.
    """

    def __init__(self, start: int, hosts: Sequence[_Host] = ()) -> None:
        self.start = start
        self._tokens: list[int] = []
        self._depths: list[int] = []
        self._places: list[int] = []
        self._slots: list[int] = []
        self._owners: list[int] = []
        # The host that came last, and the places of its tokens.
        self._last: Sequence[int] = ()
        self._path: list[int] = []
        for host in hosts:
            self._add(host.tokens[start:], host.spans)

    def __len__(self) -> int:
        return len(self._tokens)

    def _add(self, tokens: Sequence[int], spans: Sequence[_Span]) -> None:
        del self._path[_num_shared(self._last, tokens) :]
        first = min(span.number for span in spans)
        for place in self._path:
            self._owners[place] = min(self._owners[place], first)
        for depth in range(len(self._path), len(tokens)):
            self._path.append(len(self._tokens))
            self._tokens.append(tokens[depth])
            self._depths.append(depth)
            self._owners.append(first)
        self._last = tokens
        for span in spans:
            # What lies in a trunk is read there.
            for depth in range(max(span.first, self.start), span.end):
                if depth - self.start < len(self._path):
                    self._places.append(self._path[depth - self.start])
                    self._slots.append(span.slot + depth - span.first)

    def join(self, other: _Forest) -> None:
        """Put another forest behind this one; nothing is added to it after that."""
        shift = len(self)
        self._tokens += other._tokens
        self._depths += other._depths
        self._owners += other._owners
        self._places += [place + shift for place in other._places]
        self._slots += other._slots

    def row(self) -> Row:
        """The row."""
        tokens, depths, places, slots, owners = (
            np.array(values, dtype=np.int64)
            for values in (self._tokens, self._depths, self._places, self._slots, self._owners)
        )
        return Row(tokens, depths + self.start, _ends(self._depths), places, slots, owners)


def _ends(depths: Sequence[int]) -> Integers:
    """The place behind the last token below each, in preorder."""
    ends = np.full(len(depths), len(depths), dtype=np.int64)
    open_places: list[int] = []
    for place, depth in enumerate(depths):
        while open_places and depths[open_places[-1]] >= depth:
            ends[open_places.pop()] = place
        open_places.append(place)
    return ends


class _Planner:
    """Hosts on their way into branches and rows."""

    def __init__(self, hosts: list[_Host], row_tokens: int, least_saved: int) -> None:
        self.hosts = hosts
        self.row_tokens = row_tokens
        self.least_saved = least_saved
        lengths = [len(host.tokens) for host in hosts]
        shared = [_num_shared(a.tokens, b.tokens) for a, b in pairwise(hosts)]
        # Tokens that each adds to those of the hosts before it.
        self._sums = np.cumsum([0, *(n - s for n, s in zip(lengths, [0, *shared], strict=True))])
        self._branches: list[Branch] = []
        self._forests: list[list[_Forest]] = []

    def branches(self) -> list[Branch]:
        """What was made, its forests packed into rows."""
        for branch, forests in zip(self._branches, self._forests, strict=True):
            branch.rows = [forest.row() for forest in _packed(forests, self.row_tokens)]
        return self._branches

    def open(self, trunk: Row | None, above: int) -> int:
        """Make a branch."""
        num_above = 0 if above < 0 else self._branches[above].num_seen
        self._branches.append(Branch(trunk, above, num_above))
        self._forests.append([])
        return len(self._branches) - 1

    def cut(self, part: _Range, branch: int) -> list[tuple[_Range, int]]:
        """Put a range into a branch, or what is below its shared beginning.

        Returns:
            What is still to be cut.
        """
        start = self._branches[branch].num_seen
        if part.high - part.low == 1 or self._size(part, start) <= self.row_tokens:
            self._add([part], branch)
            return []
        depth = self._depth(part)
        if self._size(part, depth) <= self.row_tokens:
            # One row, however long what it begins with is.
            self._add([part], branch)
            return []
        saved = (depth - start) * (self._num_rows(part, depth) - 1)
        if saved >= self.least_saved:
            branch = self.open(self._trunk(part, start, depth), branch)
        small: list[_Range] = []
        large: list[tuple[_Range, int]] = []
        for child in self._children(part, depth):
            if self._size(child, depth) > self.row_tokens:
                large.append((child, branch))
            else:
                small.append(child)
        self._add_together(small, depth, branch)
        return large

    def _size(self, part: _Range, start: int) -> int:
        """Tokens of a range below some depth."""
        behind = self._sums[part.high] - self._sums[part.low + 1]
        return len(self.hosts[part.low].tokens) - start + int(behind)

    def _depth(self, part: _Range) -> int:
        """Tokens that all of a range begin with."""
        return _num_shared(self.hosts[part.low].tokens, self.hosts[part.high - 1].tokens)

    def _num_rows(self, part: _Range, depth: int) -> int:
        """Rows, at least, for what a range has below some depth."""
        needed = -(-self._size(part, depth) // max(1, self.row_tokens))
        return min(part.high - part.low, needed)

    def _children(self, part: _Range, depth: int) -> list[_Range]:
        """Ranges that go on alike behind a depth."""
        starts = [part.low]
        for number in range(part.low + 1, part.high):
            if self.hosts[number].tokens[depth] != self.hosts[number - 1].tokens[depth]:
                starts.append(number)
        return [_Range(a, b) for a, b in zip(starts, [*starts[1:], part.high], strict=True)]

    def _trunk(self, part: _Range, start: int, depth: int) -> Row:
        """What a range begins with, as a row, with all that is read there."""
        spans = [span for host in self.hosts[part.low : part.high] for span in host.spans]
        return _Forest(start, [_Host(self.hosts[part.low].tokens[:depth], spans)]).row()

    def _add_together(self, parts: list[_Range], depth: int, branch: int) -> None:
        """Put ranges into a branch, some in one forest: they begin alike up to a depth."""
        bins = _Bins[list[_Range]](self.row_tokens)
        for part in sorted(parts, key=lambda part: (-self._size(part, depth), part.low)):
            size = self._size(part, depth)
            used, together = bins.take(size) or (0, [])
            bins.put(used + size, [*together, part])
        for ranges in bins.contents():
            self._add(ranges, branch)

    def _add(self, parts: list[_Range], branch: int) -> None:
        """Make a forest of ranges."""
        hosts = [
            host
            for part in sorted(parts, key=lambda part: part.low)
            for host in self.hosts[part.low : part.high]
        ]
        self._forests[branch].append(_Forest(self._branches[branch].num_seen, hosts))


def _packed(forests: list[_Forest], row_tokens: int) -> list[_Forest]:
    """Forests in rows of about one length: the longest first, each where it fits best."""
    bins = _Bins[_Forest](row_tokens)
    for forest in sorted(forests, key=len, reverse=True):
        found = bins.take(len(forest))
        if found is None:
            bins.put(len(forest), forest)
        else:
            _, row = found
            row.join(forest)
            bins.put(len(row), row)
    return bins.contents()


Content = TypeVar("Content")


class _Bins(Generic[Content]):
    """Bins of one size, the fullest of which that has room is found by bisection.

    Args:
        size: Of each bin; what is larger has one of its own.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        # Sorted by how full they are; of equal ones the oldest is last.
        self._bins: list[tuple[int, int, Content]] = []
        self._count = 0

    def take(self, size: int) -> tuple[int, Content] | None:
        """Take out the bin that is left with the least room, and how full it is."""
        place = bisect.bisect_right(self._bins, self._size - size, key=lambda held: held[0])
        if place == 0:
            return None
        used, _, content = self._bins.pop(place - 1)
        return used, content

    def put(self, used: int, content: Content) -> None:
        """Put a bin in."""
        self._count += 1
        entry = used, -self._count, content
        bisect.insort(self._bins, entry, key=lambda held: held[:2])

    def contents(self) -> list[Content]:
        """What is in the bins, the emptiest last."""
        return [content for _, _, content in reversed(self._bins)]
