"""Documents that say nearly the same: found by the pieces of text that they share.

Two texts are near-duplicates where they have the same numbers and signs in them, and at least
`LEAST_OVERLAP` of the pieces that either has are in both (Jaccard similarity of character
n-grams, after normalization). Texts with other numbers ask something else, however much they
look alike. Pieces that many texts have are a template's, and do not count; a text that is mostly a
template is a near-duplicate of those only that are equal.
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

MOST_SHARED = 20
MOST_SHARED_SHARE = 0.02
"""Texts that have a piece, and their share of all, whichever is more: beyond it is a template's."""

LEAST_PIECES = 10
LEAST_PIECES_SHARE = 0.25
"""Pieces that a text must have beside its template to be compared, and their share of all."""

_SIGNS = re.compile(r"\d+|[+*/=<>^%|&~]|(?<=[\w)]) ?-(?= ?[\d(]| \w\b)")
"""Numbers, and signs that make other sums of them."""

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

    Of texts that are too short to be compared, or mostly a template, those count that are equal
    but for case and spaces.

    Args:
        texts: As they are.

    Returns:
        Positions of the texts of each group of two or more, ascending; whoever is a near-duplicate
        of one of a group belongs to it.
    """
    folded = [" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts]
    first: dict[str, int] = {}
    links = [(first.setdefault(text, number), number) for number, text in enumerate(folded) if text]
    pieces = {number: _pieces(normalized(text)[:MOST_LETTERS]) for text, number in first.items()}
    rare = _without_templates(pieces)
    by_signs: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number in rare:
        by_signs[tuple(sorted(_SIGNS.findall(folded[number])))].append(number)
    for members in by_signs.values():
        if len(members) > 1:
            links += _alike([rare[number] for number in members], members)
    return joined(links, len(texts))


def _without_templates(pieces: Mapping[int, Pieces]) -> dict[int, Pieces]:
    """Pieces that are not a template's, of the texts that have enough of them."""
    if not pieces:
        return {}
    found, counts = np.unique(np.concatenate(list(pieces.values())), return_counts=True)
    most = max(MOST_SHARED, MOST_SHARED_SHARE * len(pieces))
    common = found[counts > most]
    rare = {}
    for number, own in pieces.items():
        left = np.setdiff1d(own, common, assume_unique=True)
        if len(left) >= max(LEAST_PIECES_SHARE * len(own), min(LEAST_PIECES, len(own)), 1):
            rare[number] = left
    return rare


def _alike(pieces: Sequence[Pieces], numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of near-duplicates among different texts, by their pieces.

    Only those are compared that agree in a band of their MinHash signatures (Broder, "On the
    resemblance and containment of documents", 1997): of pairs at the least overlap that is 99 %.
    """
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
    numbers = np.zeros(max(0, len(letters) - PIECE_LENGTH + 1), dtype=np.uint64)
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
