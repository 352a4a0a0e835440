"""What a model's tokenizer says, and whether the models of a pool read text alike.

A folder without tokenizer.json (SentencePiece's tokenizer.model, vocab.json with merges.txt) is
read as transformers converts it.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, shorten
from evomerge.files import sha256_file
from evomerge.pool.adapters.adapter import Adapter
from evomerge.pool.checkpoint import Checkpoint, model_json
from evomerge.pool.foreign_code import TOKENIZER_CONFIG, copy_without_code, named_code
from evomerge.pool.from_transformers import tokenizer_in
from evomerge.pool.vocabulary.texts import texts_of
from evomerge.reading import first_line

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"

SLOW_FILES = (
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "added_tokens.json",
)
"""Where tokenizers without tokenizer.json say their tokens."""

MATCHES = (
    "\n`pool.vocabulary: {tokens: base, match: text}` takes each token's row from the token of the "
    "same text"
)

READING = ("model", "normalizer", "pre_tokenizer")
"""Parts of tokenizer.json that cut a text into tokens, beside the added ones."""

BESIDE = (
    "config.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "merges.txt",
    "bpe.codes",
)
"""Files that a conversion reads as well."""

ALIGNS = (
    "`pool.vocabulary: {tokens: base}` or `{tokens: union}` aligns them (in a mergekit "
    "configuration, `tokenizer_source`)"
)


def check_tokenizers(base: Checkpoint, experts: tuple[Checkpoint, ...]) -> None:
    """Compare vocabularies; an expert without a tokenizer takes the base's, which is said.

    Raises:
        InputError: A token has another id in an expert than in the base.
    """
    if not has_tokenizer(base):
        return
    base_vocabulary: dict[str, int] | None = None
    for expert in experts:
        if not has_tokenizer(expert) or not has_own_tokenizer(expert, base):
            tell_of_none(expert)
            continue
        if base_vocabulary is None:
            base_vocabulary = read_vocabulary(base)
        difference = _difference(base_vocabulary, read_vocabulary(expert), base, expert)
        if difference is not None:
            is_added = only_added_differ(base, expert) is None
            hint = f"\nthey differ by added tokens only: {ALIGNS}" if is_added else MATCHES
            raise InputError(
                f"tokenizers differ: {difference}\n"
                f"models of one pool must share the base's vocabulary{hint}"
            )


def tell_of_none(expert: Checkpoint) -> None:
    """Say that a whole model without a tokenizer is taken to have the base's tokens."""
    if not has_tokenizer(expert) and not isinstance(expert, Adapter):
        logger.warning(
            "model %r has no tokenizer: its rows are taken to be of the base's tokens", expert.name
        )


def check_needs_no_code(base: Checkpoint) -> None:
    """Refuse a base whose tokenizer is code in its folder; none is ever run.

    Where there is a tokenizer.json, that is what the code would read as well.

    Raises:
        InputError: The tokenizer's configuration names code, and there is no tokenizer.json.
    """
    code = None if base.trusted else named_code(base.model_dir / TOKENIZER_CONFIG)
    if code is not None and not (base.model_dir / TOKENIZER_FILE).is_file():
        raise InputError(
            f"model {base.name!r}: {base.model_dir / TOKENIZER_CONFIG} names code ({code}), which "
            f"is never run, and without a {TOKENIZER_FILE} its tokens cannot be read\n"
            f"valid: a folder with a {TOKENIZER_FILE}, or with a tokenizer of one of transformers' "
            "own classes"
        )


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether a folder has files that say the tokens of a tokenizer."""
    names = {TOKENIZER_FILE, *SLOW_FILES} - {"added_tokens.json"}
    return any((checkpoint.model_dir / name).is_file() for name in names)


def share_vocabulary(base: Checkpoint, experts: Sequence[Checkpoint]) -> bool:
    """Whether all tokens have the same ids, those without rows included."""
    owners = [expert for expert in experts if has_own_tokenizer(expert, base)]
    ours = read_vocabulary(base) if owners else {}
    return all(read_vocabulary(expert) == ours for expert in owners)


def has_own_tokenizer(expert: Checkpoint, base: Checkpoint) -> bool:
    """Whether a model has a tokenizer, and not the base's files."""
    names = (TOKENIZER_FILE,) if (expert.model_dir / TOKENIZER_FILE).is_file() else SLOW_FILES
    return any(
        not (base.model_dir / name).is_file()
        or sha256_file(expert.model_dir / name) != sha256_file(base.model_dir / name)
        for name in names
        if (expert.model_dir / name).is_file()
    )


def read_vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """Every token's id, added ones included."""
    data = _tokenizer_json(checkpoint)
    vocabulary = _model_vocabulary(data)
    for token in data.get("added_tokens") or []:
        vocabulary[token["content"]] = token["id"]
    return vocabulary


def read_added(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The added tokens' entries, by id."""
    data = _tokenizer_json(checkpoint)
    return sorted(data.get("added_tokens") or [], key=lambda token: int(token["id"]))


def read_texts(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Every token's text, in UTF-8."""
    return texts_of(_tokenizer_json(checkpoint), read_vocabulary(checkpoint))


def only_added_differ(base: Checkpoint, expert: Checkpoint) -> str | None:
    """What two tokenizers differ by beside added tokens; None where it is nothing."""
    ours, theirs = _tokenizer_json(base), _tokenizer_json(expert)
    if all(ours.get(part) == theirs.get(part) for part in READING):
        return None
    difference = _difference(_model_vocabulary(ours), _model_vocabulary(theirs), base, expert)
    if difference is not None:
        return difference
    # Releases of `tokenizers` write the same differently (merges as pairs, new defaults).
    ours, theirs = _canonical(base), _canonical(expert)
    for part in READING:
        if ours.get(part) != theirs.get(part):
            what = "merges or other options of its model" if part == "model" else part
            return f"{expert.name!r} has another {what} than {base.name!r}"
    return None


def _canonical(checkpoint: Checkpoint) -> dict[str, Any]:
    from tokenizers import Tokenizer

    if not (checkpoint.model_dir / TOKENIZER_FILE).is_file():
        return converted(checkpoint)
    path = checkpoint.model_dir / TOKENIZER_FILE
    try:
        data: dict[str, Any] = json.loads(Tokenizer.from_file(str(path)).to_str())
    except Exception as error:  # noqa: BLE001  (tokenizers raises nothing narrower)
        raise InputError(
            f"model {checkpoint.name!r}: cannot read {path}: {first_line(error)}"
        ) from None
    return data


def _difference(
    ours: dict[str, int], theirs: dict[str, int], base: Checkpoint, expert: Checkpoint
) -> str | None:
    if ours == theirs:
        return None
    token = min(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    return (
        f"token {token!r} has id {ours.get(token)} in {base.name!r} "
        f"and {theirs.get(token)} in {expert.name!r}"
    )


def _tokenizer_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """A model's tokenizer.json, whose tokens have texts and ids; converted where it has none."""
    path = checkpoint.model_dir / TOKENIZER_FILE
    if not path.is_file():
        return converted(checkpoint)
    data = model_json(checkpoint.name, path)
    added, model = data.get("added_tokens") or [], data.get("model") or {}
    vocabulary = model.get("vocab", {}) if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        is_whole = all(isinstance(e, list) and e and isinstance(e[0], str) for e in vocabulary)
    else:
        is_whole = isinstance(vocabulary, dict) and all(
            type(index) is int for index in vocabulary.values()
        )
    if not is_whole:
        raise InputError(
            f"model {checkpoint.name!r}: {path}: model.vocab is no vocabulary; valid: ids by "
            "token, or a list of [token, score]"
        )
    for entry in added if isinstance(added, list) else [added]:
        token = entry if isinstance(entry, dict) else {}
        if not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
            raise InputError(
                f"model {checkpoint.name!r}: {path}: added_tokens has an entry without content or "
                f"id: {shorten(repr(entry), 100)}"
            )
    return data


def converted(checkpoint: Checkpoint) -> dict[str, Any]:
    """The tokenizer.json that a folder without one has when transformers saves its tokenizer.

    Raises:
        InputError: transformers cannot read it, or has no form for it that says its tokens.
    """
    if checkpoint.converted_tokenizer is None:
        with tempfile.TemporaryDirectory() as name:
            for file in (*SLOW_FILES, *BESIDE):
                path = checkpoint.model_dir / file
                if path.is_file():
                    copy_without_code(path, Path(name) / file)
            tokenizer: Any = tokenizer_in(Path(name), shown=checkpoint.model_dir)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"model {checkpoint.name!r}: {checkpoint.model_dir} has no {TOKENIZER_FILE}, and "
                f"transformers cannot convert its tokenizer ({type(tokenizer).__name__}) to one: "
                "which tokens its rows are is not known"
            )
        checkpoint.converted_tokenizer = json.loads(backend.to_str())
    return checkpoint.converted_tokenizer


def _model_vocabulary(data: dict[str, Any]) -> dict[str, int]:
    model = (data.get("model") or {}).get("vocab", {})
    if isinstance(model, list):  # Unigram: pairs of (token, score), the id is the position
        return {entry[0]: index for index, entry in enumerate(model)}
    return dict(model)
