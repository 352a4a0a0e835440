"""Whether transformers reads a SentencePiece model (tokenizer.model) as SentencePiece does.

Without a tokenizer_config.json that names a class, transformers 5 takes a general one for many
families, which forgets the space that SentencePiece puts before a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.reading import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL_FILE = "tokenizer.model"

PROBES = ("the quick brown fox", "a\nb  c", "1 + 1 = 2", "def f(x):\n    return x", "naïve")
"""Texts on which both are compared."""


def needs_a_class(folder: Path) -> bool:
    """Whether a folder has a SentencePiece model, and nothing that says by which class it is read.

    Args:
        folder: The model's.
    """
    if not (folder / MODEL_FILE).is_file() or (folder / "tokenizer.json").is_file():
        return False
    path = folder / "tokenizer_config.json"
    return not path.is_file() or "tokenizer_class" not in read_json(path)


def is_read_alike(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether texts have the tokens that SentencePiece gives them; True for files of other kinds.

    Args:
        tokenizer: What transformers has made of the folder's files.
        folder: Where they lie.
    """
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(str(folder / MODEL_FILE))
    # A file of tiktoken's has the same name; transformers has read it.
    except (OSError, RuntimeError):
        return True
    return all(
        tokenizer(text, add_special_tokens=False).input_ids == pieces.encode(text)
        for text in PROBES
    )
