"""What a model's tokenizer.json says, and whether the models of a pool read text alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from evomerge.errors import InputError, shorten
from evomerge.files import sha256_file
from evomerge.pool.checkpoint import Checkpoint, model_json
from evomerge.pool.foreign_code import TOKENIZER_CONFIG, named_code
from evomerge.reading import first_line

TOKENIZER_FILE = "tokenizer.json"

SLOW_FILES = (
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "added_tokens.json",
)
"""Where tokenizers without tokenizer.json say their tokens."""

READING = ("model", "normalizer", "pre_tokenizer")
"""Parts of tokenizer.json that cut a text into tokens, beside the added ones."""

ALIGNS = (
    "`pool.vocabulary: {tokens: base}` or `{tokens: union}` aligns them (in a mergekit "
    "configuration, `tokenizer_source`)"
)


def check_tokenizers(base: Checkpoint, experts: tuple[Checkpoint, ...]) -> None:
    """Compare vocabularies; an expert without a tokenizer takes the base's.

    Raises:
        InputError: A token has another id in an expert than in the base.
    """
    base_path = base.model_dir / TOKENIZER_FILE
    if not base_path.is_file():
        return
    base_vocabulary: dict[str, int] | None = None
    for expert in experts:
        if not has_own_tokenizer(expert, base):
            continue
        if base_vocabulary is None:
            base_vocabulary = read_vocabulary(base)
        difference = _difference(base_vocabulary, read_vocabulary(expert), base, expert)
        if difference is not None:
            is_added = only_added_differ(base, expert) is None
            hint = f"\nthey differ by added tokens only: {ALIGNS}" if is_added else ""
            raise InputError(
                f"tokenizers differ: {difference}\n"
                f"models of one pool must share the base's vocabulary{hint}"
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


def check_readable(expert: Checkpoint, base: Checkpoint) -> None:
    """Refuse a model that says its tokens in other files than tokenizer.json.

    Raises:
        InputError: It has no tokenizer.json, and files of a tokenizer that are not the base's.
    """
    if (expert.model_dir / TOKENIZER_FILE).is_file():
        return
    for name in SLOW_FILES:
        path, ours = expert.model_dir / name, base.model_dir / name
        if path.is_file() and not (ours.is_file() and sha256_file(path) == sha256_file(ours)):
            raise InputError(
                f"pool.vocabulary: model {expert.name!r} has {path} and no {TOKENIZER_FILE}, which "
                "alone is read: which tokens its rows are is not known\n"
                "load its tokenizer with transformers' AutoTokenizer and save it there; without "
                "tokenizer files a model has the base's"
            )


def share_vocabulary(base: Checkpoint, experts: Sequence[Checkpoint]) -> bool:
    """Whether all tokens have the same ids, those without rows included."""
    owners = [expert for expert in experts if has_own_tokenizer(expert, base)]
    ours = read_vocabulary(base) if owners else {}
    return all(read_vocabulary(expert) == ours for expert in owners)


def has_own_tokenizer(expert: Checkpoint, base: Checkpoint) -> bool:
    """Whether a model has a tokenizer, and not the base's file."""
    path = expert.model_dir / TOKENIZER_FILE
    return path.is_file() and sha256_file(path) != sha256_file(base.model_dir / TOKENIZER_FILE)


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
    """A model's tokenizer.json, whose tokens have texts and ids."""
    path = checkpoint.model_dir / TOKENIZER_FILE
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


def _model_vocabulary(data: dict[str, Any]) -> dict[str, int]:
    model = (data.get("model") or {}).get("vocab", {})
    if isinstance(model, list):  # Unigram: pairs of (token, score), the id is the position
        return {entry[0]: index for index, entry in enumerate(model)}
    return dict(model)
