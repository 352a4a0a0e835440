"""The tokenizer of merged models: the base's files, with the tokens that experts added."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.checkpoint import INDEX_FILE, read_json
from evomerge.pool.pool import Pool
from evomerge.pool.tokenizers import TOKENIZER_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECODER_FILE = "tokenizer_config.json"
IDS_FILE = "added_tokens.json"


def copy_companions(model_dir: Path, folder: Path, left_out: frozenset[str] = frozenset()) -> None:
    """Copy what lies beside a model's tensors: configurations, tokenizer, chat template.

    Args:
        model_dir: The model's folder.
        folder: Where to.
        left_out: Names of files that are not copied.
    """
    for path in sorted(model_dir.iterdir()):
        is_companion = path.suffix in (".json", ".txt", ".jinja") or path.name == "tokenizer.model"
        if is_companion and path.name not in {*left_out, INDEX_FILE} and path.is_file():
            shutil.copyfile(path, folder / path.name)


def write_added_tokens(pool: Pool, folder: Path) -> None:
    """Add a pool's added tokens to the base's tokenizer in a folder.

    All else in the files stays as the base has it.

    Raises:
        InputError: Read again the tokens do not have their ids.
    """
    if not pool.added_tokens:
        return
    tokenizer = read_json("base", folder / TOKENIZER_FILE)
    tokenizer["added_tokens"] = [*(tokenizer.get("added_tokens") or []), *pool.added_tokens]
    _write(folder / TOKENIZER_FILE, tokenizer)
    # Releases of transformers before 5 read these too, where they are.
    if (folder / DECODER_FILE).is_file():
        config = read_json("base", folder / DECODER_FILE)
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"] |= _by_id(pool.added_tokens)
            _write(folder / DECODER_FILE, config)
    if (folder / IDS_FILE).is_file():
        ids = read_json("base", folder / IDS_FILE)
        _write(folder / IDS_FILE, ids | {t["content"]: t["id"] for t in pool.added_tokens})
    _load(pool, folder)


def load_tokenizer(pool: Pool) -> PreTrainedTokenizerBase:
    """The tokenizer of the pool's merged models.

    Raises:
        InputError: It cannot have the tokens that experts added.
    """
    if not pool.added_tokens:
        return _load(pool, pool.base.model_dir)
    with tempfile.TemporaryDirectory() as name:
        copy_companions(pool.base.model_dir, Path(name))
        write_added_tokens(pool, Path(name))
        tokenizer = _load(pool, Path(name))
    tokenizer.name_or_path = str(pool.base.model_dir)
    return tokenizer


def _load(pool: Pool, folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    for entry in pool.added_tokens:
        found = tokenizer.convert_tokens_to_ids(entry["content"])
        if found != entry["id"]:
            raise InputError(
                f"pool.vocabulary.tokens: the base's tokenizer gives the added token "
                f"{entry['content']!r} the id {found}, expected {entry['id']}: its ids have gaps; "
                "valid: base"
            )
    return tokenizer


def _by_id(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in entries
    }


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
