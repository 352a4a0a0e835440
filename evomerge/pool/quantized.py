"""Quantized checkpoints, read as the floats that transformers makes of them.

GGUF files, and folders whose config.json has a `quantization_config` (bitsandbytes, FP8, MXFP4,
compressed-tensors). What comes of one is kept in the user's cache
(`~/.cache/evomerge/dequantized` on Linux) in a folder named by the files that it was made from; it
can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import logging
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.pool.checkpoint import INDEX_FILE
from evomerge.pool.child import run_apart
from evomerge.pool.foreign_code import CONFIG_FILE, copy_without_code
from evomerge.pool.from_transformers import gguf_tokenizer_in, quantized_in
from evomerge.pool.stored import FLOATING
from evomerge.reading import first_line, read_json

logger = logging.getLogger(__name__)

GGUF_SUFFIX = ".gguf"

_GGUF_MAGIC = b"GGUF"
_GGUF_FILE = "model.gguf"
"""What a file is called while it is read."""

_TENSORS = (".safetensors", GGUF_SUFFIX)
_COMPANIONS = (".json", ".txt", ".jinja", ".model", ".md")


def as_floats(name: str, place: Path) -> Path:
    """The folder of a model in floats: its own, or one in the cache where it is quantized.

    Args:
        name: The model's, for messages.
        place: A folder, or a GGUF file.

    Raises:
        InputError: transformers cannot read it, or not undo its quantization here.
    """
    method = quantization_of(place)
    if method is None:
        return place
    from transformers import __version__ as release

    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stamps = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
        if path == place or (path.suffix in (*_TENSORS, *_COMPANIONS) and path.is_file())
    ]
    folder = user_cache_path("evomerge") / "dequantized" / sha256_json([stamps, release])
    if not folder.is_dir():
        if not _can_undo(method):
            raise _refused(name, place, method, "it does not undo this method")
        logger.warning(
            "model %r: %s is quantized (%s): it is read as floats, from %s",
            name,
            place,
            method,
            folder,
        )
        _make_once(name, place, method, folder)
    return folder.resolve()


def is_model(path: Path) -> bool:
    """Whether a model lies there: a folder, or a GGUF file."""
    return path.is_dir() or (path.is_file() and _is_gguf(path))


def quantization_of(place: Path) -> str | None:
    """How a model is quantized; None where all its tensors are floats, whatever it says."""
    if _gguf_of(place) is not None:
        return "gguf"
    if not (place / CONFIG_FILE).is_file():
        return None
    settings = read_json(place / CONFIG_FILE).get("quantization_config")
    if not isinstance(settings, dict) or not _has_other_types(place):
        return None
    return str(settings.get("quant_method") or "an unknown method")


def _has_other_types(folder: Path) -> bool:
    """Whether a tensor is of a type that no model is merged in."""
    for path in folder.glob("*.safetensors"):
        # A broken file is refused where it is opened.
        with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  (no mapping)
                if handle.get_slice(name).get_dtype() not in FLOATING:
                    return True
    return False


def _gguf_of(place: Path) -> Path | None:
    """The GGUF file that a model is, or that a folder without other tensors has alone."""
    if place.is_file():
        return place if _is_gguf(place) else None
    found = [path for path in place.iterdir() if path.suffix in _TENSORS] if place.is_dir() else []
    return found[0] if len(found) == 1 and found[0].suffix == GGUF_SUFFIX else None


def _is_gguf(path: Path) -> bool:
    """By its name, or its first bytes: a hub's cache has files without endings."""
    if path.suffix == GGUF_SUFFIX:
        return True
    # What cannot be read is told of where it is opened.
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    return False


def _make_once(name: str, place: Path, method: str, folder: Path) -> None:
    """Write a folder of floats; of several processes that want it, the first does."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name[:8]}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                # What a process that was killed has left.
                for left in folder.parent.glob(f".{folder.name[:8]}.floats.*"):
                    shutil.rmtree(left, ignore_errors=True)
                _make(name, place, method, folder)
    except OSError as error:
        raise InputError(
            f"model {name!r}: {place} is quantized, and its floats cannot be kept in "
            f"{folder.parent}: {error}\nvalid: another XDG_CACHE_HOME"
        ) from None


def _make(name: str, place: Path, method: str, folder: Path) -> None:
    """Write a folder of floats, in a process of its own, that appears whole or not at all."""
    prefix = f".{folder.name[:8]}.floats."
    temporary_dir = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        reason = run_apart(["-m", __name__, str(place), str(temporary_dir)])
        if reason is not None:
            raise _refused(name, place, method, reason.removeprefix(f"{place}: "))
        temporary_dir.rename(folder)
    finally:
        shutil.rmtree(temporary_dir, ignore_errors=True)


def _write_floats(place: Path, out_dir: Path) -> None:
    """Load a quantized model and save it in floats, with its tokenizer."""
    with tempfile.TemporaryDirectory() as name:
        folder, gguf = Path(name), _gguf_of(place)
        gguf_file = None if gguf is None else _GGUF_FILE if place.is_file() else gguf.name
        if place.is_file():
            (folder / _GGUF_FILE).symlink_to(place.resolve())
        for path in place.iterdir() if place.is_dir() else []:
            if path.suffix in _TENSORS:
                (folder / path.name).symlink_to(path.resolve())
            elif path.suffix in _COMPANIONS and path.is_file():
                copy_without_code(path, folder / path.name)
        if gguf_file is None:
            _ask_for_floats(folder / CONFIG_FILE)
        quantized_in(folder, place, gguf_file).save_pretrained(out_dir)
        if gguf_file is not None:
            path = out_dir / CONFIG_FILE
            told = _shortest(read_json(path))
            path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        if gguf_file is not None and not (folder / "tokenizer.json").is_file():
            # Without one, its rows are taken to be of the base's tokens, which is said.
            with suppress(InputError):
                gguf_tokenizer_in(folder, gguf_file).save_pretrained(out_dir)
        for path in folder.iterdir():
            if (
                path.suffix in _COMPANIONS
                and path.name != INDEX_FILE
                and not (out_dir / path.name).exists()
            ):
                shutil.copyfile(path, out_dir / path.name)


def _ask_for_floats(path: Path) -> None:
    """Tell the methods that can that they undo their quantization, on machines with a GPU too."""
    data = read_json(path)
    settings = data["quantization_config"]
    if _is_told_to_undo(str(settings.get("quant_method"))):
        settings["dequantize"] = True
        path.write_text(json.dumps(data), encoding="utf-8")


def _can_undo(method: str) -> bool:
    """Whether transformers has a way back from a method, or may have one under another name."""
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
    from transformers.quantizers.base import HfQuantizer

    quantizer: Any = AUTO_QUANTIZER_MAPPING.get(method)
    if quantizer is None or _is_told_to_undo(method):
        return True
    return quantizer._dequantize is not HfQuantizer._dequantize


def _is_told_to_undo(method: str) -> bool:
    """Whether the settings of a method say that it is undone while a model is read."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    made = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    return made is not None and "dequantize" in inspect.signature(made).parameters


def _refused(name: str, place: Path, method: str, reason: str) -> InputError:
    return InputError(
        f"model {name!r}: {place} is quantized ({method}), and transformers cannot read it as "
        f"floats: {reason}\nvalid: the model that it was quantized from"
    )


def _shortest(value: Any) -> Any:
    """JSON whose numbers are what was written before they were float32 in a GGUF file."""
    if isinstance(value, dict):
        return {key: _shortest(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortest(each) for each in value]
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


if __name__ == "__main__":
    try:
        _write_floats(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(first_line(error))
