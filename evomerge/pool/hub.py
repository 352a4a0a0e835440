"""Where a model lies: a local folder, or the hub's cache as transformers keeps it."""

from __future__ import annotations

import logging
from pathlib import Path

from evomerge.errors import InputError
from evomerge.pool.config import ModelConfig
from evomerge.pool.quantized import is_model
from evomerge.reading import first_line, whole_path

PATTERNS = ("*.safetensors", "*.json", "*.txt", "tokenizer.model", "*.jinja", "README.md")


def split_source(source: str) -> tuple[str, str | None]:
    """A folder, or a hub id and its commit, of a source as recipes say it.

    Args:
        source: An absolute path, `id@commit` or `id`.
    """
    if Path(source).is_absolute():
        return source, None
    repository, _, revision = source.partition("@")
    return repository, revision or None


def locate(entry: ModelConfig, config_dir: Path, *, with_code: bool = False) -> tuple[Path, str]:
    """Find a model's folder, or its GGUF file.

    Args:
        entry: A folder or hub id, with a revision or without.
        config_dir: What a relative folder is relative to.
        with_code: Whether its Python files are wanted too.

    Returns:
        The folder or file, and the source as recipes say it: an absolute path, or `id@commit`.

    Raises:
        InputError: Neither a folder nor a hub id that can be had.
    """
    local_dir = whole_path(entry.source, config_dir, "model")
    if is_model(local_dir):
        return local_dir, str(local_dir)
    if local_dir.is_file():
        raise InputError(
            f"model {entry.source!r}: {local_dir} is a file; valid: a model's folder, a GGUF file, "
            "or a hub id\n`evomerge build FILE --out FOLDER` makes a folder of a recipe or of a "
            "mergekit configuration"
        )
    parts = entry.source.split("/")
    if entry.source.startswith((".", "/", "~")) or len(parts) > 2 or not all(parts):
        raise InputError(f"model folder {entry.source!r} is missing (looked for {local_dir})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # What it cannot reach it raises as well, after five warnings.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        snapshot = snapshot_download(
            entry.source,
            revision=entry.revision,
            allow_patterns=[*PATTERNS, *(["*.py"] if with_code else [])],
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = first_line(error).split(". ")[0]
        raise InputError(
            f"model {entry.source!r}: no such folder ({local_dir}), and not to be had from the "
            f"hub or its cache: {reason}"
        ) from None
    # The cache's folder of a snapshot is named after its commit.
    return Path(snapshot), f"{entry.source}@{Path(snapshot).name}"
