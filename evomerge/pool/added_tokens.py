"""The tokenizer of merged models: the base's files, with the tokens that experts added."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.checkpoint import INDEX_FILE, Checkpoint, model_json
from evomerge.pool.foreign_code import CODE_FILES, copy_without_code, named_code
from evomerge.pool.from_transformers import tokenizer_in
from evomerge.pool.pool import Pool
from evomerge.pool.sentence_pieces import needs_a_class
from evomerge.pool.vocabulary.tokenizers import TOKENIZER_FILE, converted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECODER_FILE = "tokenizer_config.json"
IDS_FILE = "added_tokens.json"


def copy_companions(
    model: Checkpoint, folder: Path, left_out: frozenset[str] = frozenset()
) -> None:
    """Copy what lies beside a model's tensors: configurations, tokenizer, chat template.

    Names of foreign code are left out, unless the model is trusted: then its code is copied too.

    Args:
        model: The model.
        folder: Where to.
        left_out: Names of files that are not copied.
    """
    suffixes = (".json", ".txt", ".jinja", *((".py",) if model.trusted else ()))
    for path in sorted(model.model_dir.iterdir()):
        is_companion = path.suffix in suffixes or path.name == "tokenizer.model"
        if is_companion and path.name not in {*left_out, INDEX_FILE} and path.is_file():
            (shutil.copyfile if model.trusted else copy_without_code)(path, folder / path.name)


def write_added_tokens(pool: Pool, folder: Path) -> None:
    """Add a pool's added tokens to the base's tokenizer in a folder.

    All else in the files stays as the base has it. A SentencePiece model that nothing says the
    class of is converted, so that other programs read it as it was read here.

    Raises:
        InputError: Read again the tokens, or the base's own, do not have their ids.
    """
    if not pool.added_tokens:
        if needs_a_class(pool.base.model_dir):
            load_tokenizer(pool).save_pretrained(folder)
        return
    # Not in the folder: transformers has no class for the config.json of a path's own model.
    load_tokenizer(pool)
    _add(pool, folder)


def load_tokenizer(pool: Pool) -> PreTrainedTokenizerBase:
    """The tokenizer of the pool's merged models; code of its folder runs only if it is trusted.

    Raises:
        InputError: transformers cannot read it, or it cannot have the tokens that experts added.
    """
    base = pool.base
    if not pool.added_tokens:
        if base.trusted or not any(named_code(base.model_dir / name) for name in CODE_FILES):
            return _load(base.model_dir, base)
        with tempfile.TemporaryDirectory() as name:
            copy_companions(base, Path(name))
            return _load(Path(name), base)
    with tempfile.TemporaryDirectory() as name:
        copy_companions(base, Path(name))
        _write_converted(pool, Path(name))
        data = model_json("base", Path(name) / TOKENIZER_FILE)
        if data.get("added_tokens") is None:  # which transformers cannot read
            _write(Path(name) / TOKENIZER_FILE, data | {"added_tokens": []})
        before = _load(Path(name), base).get_vocab()
        _add(pool, Path(name))
        tokenizer = _load(Path(name), base)
    _check_ids(pool, before, tokenizer.get_vocab())
    return tokenizer


def _load(folder: Path, model: Checkpoint) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, which has the files of a model."""
    try:
        return tokenizer_in(folder, shown=model.model_dir, with_code=model.trusted)
    except InputError as error:
        raise InputError(f"model 'base': {error}") from None


def _check_ids(pool: Pool, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Every token must have the id of its row, and the base's must keep theirs."""
    for entry in pool.added_tokens:
        found = after.get(entry["content"])
        if found != entry["id"]:
            raise InputError(
                f"pool.vocabulary.tokens: the base's tokenizer gives the added token "
                f"{entry['content']!r} the id {found}, expected {entry['id']}: its ids have gaps; "
                "valid: base"
            )
    for token, index in before.items():
        if after.get(token) != index:
            raise _unlisted(pool, token, index)


def _write_converted(pool: Pool, folder: Path) -> None:
    """Write a tokenizer.json where the base has none: transformers reads it before other files."""
    if not (folder / TOKENIZER_FILE).is_file():
        _write(folder / TOKENIZER_FILE, converted(pool.base))


def _add(pool: Pool, folder: Path) -> None:
    _write_converted(pool, folder)
    tokenizer = model_json("base", folder / TOKENIZER_FILE)
    listed = tokenizer.get("added_tokens") or []
    _write(folder / TOKENIZER_FILE, tokenizer | {"added_tokens": [*listed, *pool.added_tokens]})
    # Releases of transformers before 5 read these too, where they are.
    if (folder / DECODER_FILE).is_file():
        config = model_json("base", folder / DECODER_FILE)
        decoder = config.get("added_tokens_decoder")
        if decoder is not None:
            if not isinstance(decoder, dict) or not all(map(_is_token, decoder.items())):
                raise InputError(
                    f"model 'base': {pool.base.model_dir / DECODER_FILE}: added_tokens_decoder is "
                    "no mapping of ids to tokens"
                )
            _check_free(pool, {int(index): entry["content"] for index, entry in decoder.items()})
            config["added_tokens_decoder"] = decoder | _by_id(pool.added_tokens)
            _write(folder / DECODER_FILE, config)
    if (folder / IDS_FILE).is_file():
        ids = model_json("base", folder / IDS_FILE)
        _check_free(pool, {index: token for token, index in ids.items()})
        _write(folder / IDS_FILE, ids | {t["content"]: t["id"] for t in pool.added_tokens})


def _check_free(pool: Pool, tokens: Mapping[int, str]) -> None:
    """An added token must not take the place of another."""
    for entry in pool.added_tokens:
        token = tokens.get(entry["id"], entry["content"])
        if token != entry["content"]:
            raise _unlisted(pool, token, entry["id"])


def _unlisted(pool: Pool, token: str, index: int) -> InputError:
    model_dir = pool.base.model_dir
    return InputError(
        f"pool.vocabulary.tokens: the base's token {token!r} has id {index} in {model_dir}, and "
        f"its {TOKENIZER_FILE} does not list it, so that an added token takes the id\n"
        f"save the base's tokenizer again (`AutoTokenizer.from_pretrained(folder)"
        f".save_pretrained(folder)`), or give `tokens: base`"
    )


def _is_token(entry: tuple[str, Any]) -> bool:
    index, token = entry
    return index.isdecimal() and isinstance(token, dict) and "content" in token


def _by_id(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in entries
    }


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
