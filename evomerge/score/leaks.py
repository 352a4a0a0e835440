"""Documents that stand in the text that models were trained on.

A document's score is the length of its longest part that stands in the training text, as a share of
its length: LONGEST-MATCH of "Evaluation data contamination in LLMs: how do we measure it and (when)
does it matter?" (arXiv 2411.03923), with pieces of 8 words and a count of 1, which that paper found
to tell best whether models gained from a document.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.score.duplicates import text_of

NUM_WORDS = 8
"""Of a piece that is looked for; what is shorter says nothing of where it comes from."""

NUM_LETTERS = 20
"""Of a piece, where most words are letters of a script without spaces."""

TEXT_BYTES = 1 << 20
"""About as much of a file is looked through at a time."""

_WITHOUT_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

_LETTER = re.compile(f"[{_WITHOUT_SPACES}]")
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\W_{_WITHOUT_SPACES}]+")
"""A word; of scripts without spaces, a letter."""


def words_of(text: str) -> list[str]:
    """A text's words in lower case, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def longest_matches(
    documents: Sequence[Mapping[str, Any]], paths: Sequence[Path]
) -> dict[int, float]:
    """How much of each document stands in some text files in one piece.

    Memory follows from the documents, and not from the files, which are read once.

    Args:
        documents: The documents.
        paths: Text files; of JSON and JSON Lines files the texts in them count.

    Returns:
        By position, for documents of which at least a piece was found: length of the longest part
        of which every piece was found over the document's length, in words, above 0 to 1.

    Raises:
        InputError: A file cannot be read.
    """
    texts = [words_of(text_of(document)) for document in documents]
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for words in texts:
        size = _size(words)
        wanted[size] |= set(_pieces(words, size))
    found: set[tuple[int, int]] = set()
    for path in paths:
        for text in _texts(path):
            words = words_of(text)
            for size, pieces in wanted.items():
                found |= {(size, piece) for piece in _pieces(words, size) if piece in pieces}
    scores = {}
    for number, words in enumerate(texts):
        size = _size(words)
        longest = run = 0
        for piece in _pieces(words, size):
            run = run + 1 if (size, piece) in found else 0
            longest = max(longest, run + size - 1 if run else 0)
        if longest:
            scores[number] = longest / len(words)
    return scores


def _size(words: Sequence[str]) -> int:
    """Words of a piece of some text."""
    num_letters = sum(_LETTER.fullmatch(word) is not None for word in words)
    return NUM_LETTERS if 2 * num_letters > len(words) else NUM_WORDS


def _pieces(words: Sequence[str], size: int) -> Iterator[int]:
    """A number for each run of so many words."""
    for start in range(len(words) - size + 1):
        yield hash(tuple(words[start : start + size]))


def _texts(path: Path) -> Iterable[str]:
    """A file's texts, each of which is looked through by itself."""
    try:
        if path.suffix in (".json", ".jsonl"):
            yield from _json_texts(path)
            return
        with path.open(encoding="utf-8") as file:
            paragraph: list[str] = []
            size = 0
            for line in file:
                paragraph.append(line)
                size += len(line)
                # A text goes on over empty lines, but not for ever.
                if (size > TEXT_BYTES and not line.strip()) or size > 8 * TEXT_BYTES:
                    yield "".join(paragraph)
                    paragraph, size = [], 0
            yield "".join(paragraph)
    except (OSError, ValueError) as error:
        raise InputError(f"score.training_text: {path} cannot be read: {error}") from None


def _json_texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        entries = map(json.loads, filter(str.strip, file)) if path.suffix == ".jsonl" else None
        for entry in entries if entries is not None else [json.load(file)]:
            for one in entry if isinstance(entry, list) else [entry]:
                yield text_of(one if isinstance(one, dict) else {"text": one})
