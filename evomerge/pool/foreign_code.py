"""Code that a model folder names.

It does not run, and no checkpoint that is written names it, unless the configuration trusts the
model.

transformers finds the names of Python modules in these files. Where it has no class of its own, it
asks on standard input whether to run such a module, so it is given the files without the names.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.reading import MAX_JSON_BYTES, load_json, read_text

logger = logging.getLogger(__name__)

TOKENIZER_CONFIG = "tokenizer_config.json"

CONFIG_FILE = "config.json"

CODE_FILES = (
    CONFIG_FILE,
    TOKENIZER_CONFIG,
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Where transformers looks for the names of classes."""

CODE_FIELDS = ("auto_map", "custom_pipelines", "configuration_files")
"""Fields that name a module or, the last, another file in the place of config.json."""

KERNEL_FIELDS = ("attn_implementation", "_attn_implementation")
"""Fields that name an implementation of transformers' own, or a repository of compiled code."""


def without_code(data: Any) -> Any:
    """A file's JSON without the fields that name code, at any depth."""
    if isinstance(data, dict):
        return {key: without_code(value) for key, value in data.items() if not _names(key, value)}
    return [without_code(value) for value in data] if isinstance(data, list) else data


def named_code(path: Path) -> str | None:
    """The code that a file of a model folder names; None if it names none or cannot be read."""
    return _first_named(_read(path))


def refuse_code_of_others(path: Path) -> None:
    """Refuse a file of a trusted model that names code of another repository.

    transformers would fetch and run it.

    Raises:
        InputError: It does.
    """
    code = named_code(path)
    if code is not None and "--" in code:
        raise InputError(
            f"{path} names code of another repository ({code}), which is never fetched; valid: "
            "files of the model's own folder"
        )


def copy_without_code(path: Path, target_path: Path) -> None:
    """Copy a file of a model folder: byte for byte if it names no code."""
    data = _read(path) if path.name in CODE_FILES else None
    if _first_named(data) is None:
        shutil.copyfile(path, target_path)
        return
    text = json.dumps(without_code(data), indent=2, ensure_ascii=False)
    target_path.write_text(f"{text}\n", encoding="utf-8")


def warn_of_code(name: str, model_dir: Path, *, trusted: bool = False) -> None:
    """Log that a model has code of its own, and whether the code runs.

    Args:
        name: The model's.
        model_dir: Its folder.
        trusted: Whether the code may run.
    """
    does = "runs" if trusted else "is never run: transformers' own class is used in its place"
    for file_name in (CONFIG_FILE, TOKENIZER_CONFIG):
        code = named_code(model_dir / file_name)
        if code is not None:
            logger.warning(
                "model %r: %s names code (%s), which %s", name, model_dir / file_name, code, does
            )


@contextmanager
def config_dir_without_code(model_dir: Path) -> Iterator[Path]:
    """A folder whose config.json names no code: the model's own, or a temporary one."""
    path = model_dir / CONFIG_FILE
    if named_code(path) is None:
        yield model_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_without_code(path, Path(folder) / CONFIG_FILE)
        yield Path(folder)


def _names(key: str, value: Any) -> bool:
    return key in CODE_FIELDS or (key in KERNEL_FIELDS and "/" in json.dumps(value))


def _first_named(data: Any) -> str | None:
    if isinstance(data, list):
        return next((found for value in data if (found := _first_named(value))), None)
    if not isinstance(data, dict):
        return None
    for key, value in data.items():
        found = f"{key}: {json.dumps(value)}" if _names(key, value) else _first_named(value)
        if found is not None:
            return found
    return None


def _read(path: Path) -> Any:
    try:
        return load_json(read_text(path, "it", MAX_JSON_BYTES), path)
    except InputError:
        return None  # Whoever needs the file says what is wrong with it.
