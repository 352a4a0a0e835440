"""Documents that say nearly the same: found by the pieces of text that they share.

Two documents are near-duplicates where they have the same numbers in them, and at least
`LEAST_OVERLAP` of the pieces that either has are in both (Jaccard similarity of character
n-grams, after normalization). Documents with other numbers ask something else, however much they
look alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_LENGTH = 5
"""Letters of a piece: one letter that changes spoils five of them."""

LEAST_OVERLAP = 0.6
"""Share of the pieces of two documents that both have."""

MOST_LETTERS = 4096
"""Of a document that is compared."""

NUM_BANDS, NUM_ROWS = 32, 4
"""Of a signature: texts that agree in all rows of a band are compared."""

MOST_ALIKE = 200
"""Texts that agree in a band that each is compared with."""

Pieces = NDArray[np.uint64]

_MULTIPLIERS: Pieces = np.random.default_rng(9).integers(
    0, 1 << 63, size=NUM_BANDS * NUM_ROWS, dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


_NAMES_OF_IDS = re.compile(r"(?:^|[_-])(?i:u|gu|q|pair)?(?i:id|idx|index)$|[a-z](?:ID|Id)$")


def text_of(document: Mapping[str, Any]) -> str:
    """All that a document says, in the order of its fields; its name in the data is left out."""
    said = {key: value for key, value in document.items() if not _NAMES_OF_IDS.search(key)}
    return " ".join(_texts(said))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def normalized(text: str) -> str:
    """Letters and digits in lower case, with single spaces in the place of all else."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split())


def near_duplicates(texts: Sequence[str]) -> list[list[int]]:
    """Groups of texts that say nearly the same.

    Texts of which no two pieces are alike only count where they are equal after normalization.

    Args:
        texts: As they are.

    Returns:
        Positions of the texts of each group of two or more, ascending; whoever is a near-duplicate
        of one of a group belongs to it.
    """
    clean = [normalized(text)[:MOST_LETTERS] for text in texts]
    first: dict[str, int] = {}
    links = [(first.setdefault(text, number), number) for number, text in enumerate(clean)]
    by_numbers: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for text, number in first.items():
        if len(text) >= PIECE_LENGTH:
            by_numbers[tuple(sorted(re.findall(r"\d+", text)))].append(number)
    for members in by_numbers.values():
        if len(members) > 1:
            links += _alike([clean[number] for number in members], members)
    return joined(links, len(texts))


def _alike(texts: Sequence[str], numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of near-duplicates among different texts.

    Only those are compared that agree in a band of their MinHash signatures (Broder, "On the
    resemblance and containment of documents", 1997): of pairs at the least overlap that is 99 %.
    """
    pieces = [_pieces(text) for text in texts]
    signatures = np.array([_signature(own) for own in pieces])
    compared = set()
    links = []
    for band in np.split(signatures, NUM_BANDS, axis=1):
        alike: defaultdict[bytes, list[int]] = defaultdict(list)
        for place, row in enumerate(band):
            alike[row.tobytes()].append(place)
        for places in alike.values():
            for position, one in enumerate(places):
                for other in places[position + 1 : position + 1 + MOST_ALIKE]:
                    if (one, other) not in compared:
                        compared.add((one, other))
                        if _overlap(pieces[one], pieces[other]) >= LEAST_OVERLAP:
                            links.append((numbers[one], numbers[other]))
    return links


def _signature(pieces: Pieces) -> Pieces:
    """The least of each of some hashes of a text's pieces, shape [bands x rows]."""
    mixed = pieces[:, None] * _MULTIPLIERS
    return np.asarray((mixed ^ (mixed >> np.uint64(32))).min(axis=0))


def _pieces(text: str) -> Pieces:
    """A number for each different piece of a text, ascending."""
    letters = np.array([ord(letter) for letter in text], dtype=np.uint64)
    numbers = np.zeros(len(letters) - PIECE_LENGTH + 1, dtype=np.uint64)
    for place in range(PIECE_LENGTH):
        # Five letters of 21 bits do not fit into 64: a hash, whose few collisions do no harm.
        numbers *= np.uint64(0x9E3779B97F4A7C15)
        numbers += letters[place : place + len(numbers)]
    return np.unique(numbers)


def _overlap(first: Pieces, second: Pieces) -> float:
    shorter, longer = sorted((len(first), len(second)))
    if shorter < LEAST_OVERLAP * longer:
        return 0.0
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def joined(links: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """Groups of two or more that links connect."""
    above = list(range(count))

    def top(number: int) -> int:
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    for first, second in links:
        low, high = sorted((top(first), top(second)))
        above[high] = low
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(count):
        groups[top(number)].append(number)
    return [members for members in groups.values() if len(members) > 1]
