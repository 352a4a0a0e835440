"""A checkpoint on disk: safetensors files, opened memory-mapped, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evomerge.errors import InputError, shorten
from evomerge.files import sha256_file
from evomerge.pool.conversion import Conversion
from evomerge.pool.hashing import hash_and_check
from evomerge.pool.stored import FLOATING, TensorInfo
from evomerge.reading import read_json, whole_path

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass
class Checkpoint:
    """One model of a pool, in a local folder.

    Attributes:
        name: How the search calls it.
        model_dir: Where it lies.
        source: What the configuration said, for people and for recipes.
        tensors: Every tensor's place by its name in the model; of one that is stored in parts, the
            first part's place, and its own shape.
        conversions: How those are made that are stored in another form.
        aligned: What makes those tensors whose rows are put in the order of the pool's vocabulary.
        allow_nonfinite: Whether its tensors may hold NaN or infinity.
        trusted: Whether code in its folder may run.
        converted_tokenizer: What its tokenizer comes to as a tokenizer.json, where it was asked
            for and the folder has none.
    """

    name: str
    model_dir: Path
    source: str
    tensors: dict[str, TensorInfo]
    conversions: dict[str, Conversion] = field(default_factory=dict)
    aligned: dict[str, Callable[[], Tensor]] = field(default_factory=dict, repr=False)
    allow_nonfinite: bool = False
    trusted: bool = False
    converted_tokenizer: dict[str, Any] | None = field(default=None, repr=False)
    _handles: dict[Path, Any] = field(default_factory=dict, repr=False)

    def tensor(self, name: str) -> Tensor:
        """A tensor that reads the file's memory map; never write to it.

        One that is stored in another form is put together anew, in memory, at every call.
        """
        return self.aligned[name]() if name in self.aligned else self.unaligned(name)

    def unaligned(self, name: str) -> Tensor:
        """A tensor with the rows of the model's own vocabulary."""
        if name in self.conversions:
            return self.conversions[name].convert(self.read)[name]
        return self.read(self.tensors[name])

    def as_stored(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """All tensors of a model of this architecture, as this checkpoint stores them.

        Args:
            tensors: The model's, by name.

        Yields:
            Stored name and numbers. No more is held than what is stored together.
        """
        waiting: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors:
            conversion = self.conversions.get(name)
            if conversion is None:
                yield self.tensors[name].stored_name, tensor
                continue
            made = waiting.setdefault(conversion.name, {})
            made[name] = tensor
            if made.keys() == conversion.shapes.keys():
                parts = conversion.revert(waiting.pop(conversion.name))
                for stored_name, part in parts.items():
                    # A part is a view of all; files take tensors with memory of their own.
                    yield stored_name, part.clone(memory_format=torch.contiguous_format)
        assert not waiting

    def read(self, info: TensorInfo) -> Tensor:
        """The tensor at a place, mapped as `tensor` is."""
        if info.file_path not in self._handles:
            self._handles[info.file_path] = safe_open(info.file_path, framework="pt")
        tensor: Tensor = self._handles[info.file_path].get_tensor(info.stored_name)
        return tensor

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files, in order of name."""
        parts = (part for c in self.conversions.values() for part in c.sources)
        places = [*self.tensors.values(), *(part.info for part in parts)]
        return tuple(sorted({info.file_path for info in places}))

    @cached_property
    def sha256(self) -> str:
        """Hash of the tensor files' hashes, in order of name; in hex.

        Raises:
            InputError: A tensor is not finite, and that is not allowed. Every byte is read here
                and only here, so here it is noticed.
        """
        digest = hashlib.sha256()
        for file_path in self.files:
            digest.update(f"{file_path.name}\0{self._hash(file_path)}\n".encode())
        return digest.hexdigest()

    def _hash(self, file_path: Path) -> str:
        if self.allow_nonfinite or file_path.suffix != ".safetensors":
            return sha256_file(file_path)
        names = {info.stored_name for info in self.stored if info.file_path == file_path}
        sha256, not_finite = hash_and_check(file_path, names)
        if not_finite is not None:
            raise InputError(
                f"model {self.name!r}: tensor {not_finite!r} in {file_path} holds NaN or infinity, "
                "and what is merged with it would\n"
                "leave the model out, or save it again from a sound copy; if the tensor is not "
                "merged, `pool.allow_nonfinite: true`"
            )
        return sha256

    @property
    def stored(self) -> Iterable[TensorInfo]:
        """The places in its files that are read."""
        parts = (part.info for made in self.conversions.values() for part in made.sources)
        return (*self.tensors.values(), *parts)

    def makes(self, name: str) -> bool:
        """Whether a tensor is put together in memory when it is asked for."""
        return name in self.conversions or name in self.aligned

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of its tensor files."""
        return sum(file_path.stat().st_size for file_path in self.files)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        return model_json(self.name, self.model_dir / "config.json")

    @cached_property
    def license(self) -> str:
        """What its model card's header says, else "unknown"."""
        card_path = self.model_dir / "README.md"
        if card_path.is_file():
            for line in card_path.read_text(encoding="utf-8", errors="replace").splitlines()[:40]:
                if line.startswith("license:"):
                    return line.removeprefix("license:").strip()
        return "unknown"


def open_checkpoint(name: str, model_dir: Path, source: str) -> Checkpoint:
    """Open a model folder and read its tensors' headers.

    Raises:
        InputError: It has no safetensors, or a file is missing, truncated or not one.
    """
    single_path, index_path = model_dir / SINGLE_FILE, model_dir / INDEX_FILE
    if index_path.is_file():
        tensors = dict(_sharded(name, model_dir, index_path))
    elif single_path.is_file():
        tensors = read_header(name, single_path)
    else:
        pickles = sorted(path.name for path in model_dir.glob("*.bin")) + sorted(
            path.name for path in model_dir.glob("*.pt*")
        )
        found = f"only {', '.join(pickles[:3])} (pickle: never loaded)" if pickles else "none"
        raise InputError(
            f"model {name!r}: no safetensors in {model_dir}: found {found}\n"
            f"expected {SINGLE_FILE}, or {INDEX_FILE} with its shards"
            + (f"\n`evomerge import-bin {model_dir} --out FOLDER` writes them" if pickles else "")
        )
    return Checkpoint(name, model_dir, source, tensors)


def model_json(name: str, path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        InputError: It is missing or not a JSON object.
    """
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from None


def _sharded(name: str, model_dir: Path, index_path: Path) -> Iterator[tuple[str, TensorInfo]]:
    weight_map = model_json(name, index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"model {name!r}: {index_path} has no weight_map")
    headers: dict[str, dict[str, TensorInfo]] = {}
    for tensor_name, file_name in weight_map.items():
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            said = shorten(repr(file_name), 100)
            raise InputError(f"model {name!r}: {index_path} names a file outside: {said}")
        whole_path(file_name, model_dir, f"model {name!r}: {index_path}")
        if file_name not in headers:
            headers[file_name] = read_header(name, model_dir / file_name)
        if tensor_name not in headers[file_name]:
            raise InputError(
                f"model {name!r}: {index_path.name} says {tensor_name!r} is in {file_name}, "
                "which has no such tensor"
            )
        yield tensor_name, headers[file_name][tensor_name]
    # transformers loads these too.
    for header in headers.values():
        for tensor_name, info in header.items():
            if tensor_name not in weight_map:
                yield tensor_name, info


def read_header(name: str, file_path: Path) -> dict[str, TensorInfo]:
    """The places of a safetensors file's tensors, by stored name.

    Raises:
        InputError: It is missing, truncated, no safetensors, or has tensors of another type.
    """
    if not file_path.is_file():
        raise InputError(f"model {name!r}: {file_path} is missing")
    tensors = {}
    try:
        with safe_open(file_path, framework="pt") as handle:
            for tensor_name in handle.keys():  # noqa: SIM118  (no mapping)
                view = handle.get_slice(tensor_name)
                tensors[tensor_name] = TensorInfo(
                    file_path, tensor_name, tuple(view.get_shape()), view.get_dtype()
                )
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"model {name!r}: {file_path} is not a whole safetensors file: {error}\n"
            "copy or download it again"
        ) from None
    for tensor_name, info in tensors.items():
        if info.dtype not in FLOATING:
            raise InputError(
                f"model {name!r}: tensor {tensor_name!r} in {file_path} has type {info.dtype}: it "
                f"is quantized or no weight; valid: {', '.join(sorted(FLOATING))}\n"
                "dequantize it first: load the model with transformers, call `dequantize()` and "
                "save it, or take the original that it was quantized from"
            )
    return tensors
