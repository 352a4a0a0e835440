"""What text a token stands for, so that the tokens of unlike tokenizers can be compared.

Tokenizers write the same text differently: a byte-level BPE has "Ġthe" and SentencePiece "▁the"
for a word behind a space, and SentencePiece "<0x0A>" for a byte that no token begins with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def texts_of(data: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, bytes]:
    """The text of each token, in UTF-8; special tokens are their own.

    Args:
        data: tokenizer.json.
        vocabulary: Ids by token, added ones included.
    """
    added = {entry["content"] for entry in data.get("added_tokens") or []}
    parts = json.dumps([data.get(part) for part in ("pre_tokenizer", "decoder", "normalizer")])
    is_by_byte = '"type": "ByteLevel"' in parts
    return {
        token: token.encode("utf-8", "surrogatepass")
        if token in added
        else _of_bytes(token)
        if is_by_byte
        else _of_pieces(token)
        for token in vocabulary
    }


def matched(
    ours: Mapping[str, bytes], theirs: Mapping[str, bytes], ids: Mapping[str, int]
) -> dict[str, int]:
    """The id of another model's token, for each of ours that it has.

    Args:
        ours: The text of each of our tokens.
        theirs: The text of each of its tokens.
        ids: The ids of its tokens that have rows.
    """
    by_text: dict[bytes, int] = {}
    for token, text in theirs.items():
        if token in ids and (text not in by_text or not _BYTE.fullmatch(token)):
            by_text[text] = ids[token]
    found = {}
    for token, text in ours.items():
        # The same token of a tokenizer of the same kind, where several stand for one text.
        same = ids.get(token) if theirs.get(token) == text else None
        index = by_text.get(text) if same is None else same
        if index is not None:
            found[token] = index
    return found


def _of_pieces(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    if byte is not None:
        return bytes([int(byte[1], 16)])
    return token.replace(_SPACE, " ").encode("utf-8", "surrogatepass")


def _of_bytes(token: str) -> bytes:
    letters = _letters()
    if all(letter in letters for letter in token):
        return bytes(letters[letter] for letter in token)
    return token.encode("utf-8", "surrogatepass")


@cache
def _letters() -> dict[str, int]:
    """The letter that byte-level tokenizers write for each byte (GPT-2's)."""
    own = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    letters = {chr(byte): byte for byte in own}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}
