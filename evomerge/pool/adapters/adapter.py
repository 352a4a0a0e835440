"""A LoRA adapter as a model of the pool: the base's tensors, changed when they are asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from evomerge.errors import InputError
from evomerge.pool.adapters.lora import LoraSettings, LowRank, Shift, Update, read_settings
from evomerge.pool.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, read_header
from evomerge.pool.layout import Layout
from evomerge.pool.names import LoadingRules
from evomerge.pool.stored import TensorInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<matrix>[AB])\.weight|lora_embedding_(?P<table>[AB])"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?|(?P<bias>lora_B\.bias))"
)
_log = logging.getLogger(__name__)


@dataclass
class Adapter(Checkpoint):
    """An expert that is a base and a LoRA adapter of PEFT's format.

    `tensors` are all of the base; those that it changes are said to be float32.

    Attributes:
        base: What it is an adapter of.
        updates: What it does to tensors, by their name in the model.
        factors: Where its own tensors lie, by their name in its file.
        own: Where tensors lie that it stores whole, in the place of the base's, by their name in
            the model.
    """

    base: Checkpoint = field(kw_only=True)
    updates: dict[str, Update] = field(kw_only=True)
    factors: dict[str, TensorInfo] = field(kw_only=True)
    own: dict[str, TensorInfo] = field(kw_only=True)
    _starts: dict[str, str] = field(default_factory=dict, repr=False)

    def tensor(self, name: str) -> Tensor:
        """A tensor: computed now, in float32, if the adapter changes it; else as it is stored.

        A changed tensor is not kept: it takes memory while the caller holds it.
        """
        update = self.updates.get(name)
        if update is None:
            return self.start(name)
        return update.apply(self.start(name), *map(self.read_factor, update.keys))

    def makes(self, name: str) -> bool:
        """See `Checkpoint`."""
        return name in self.updates or name in self.base.aligned

    def start(self, name: str) -> Tensor:
        """What a tensor is before its update: the adapter's own copy, or the base's."""
        if name in self.own:
            return self.read(self.own[name])
        return self.base.tensor(self._starts.get(name, name))

    def read_factor(self, key: str) -> Tensor:
        """A tensor of its file, as stored."""
        return self.read(self.factors[key])

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Its tensors and its configuration, whose numbers are part of what it computes."""
        return self.model_dir / ADAPTER_CONFIG, self.model_dir / ADAPTER_FILE

    @property
    def stored(self) -> Iterable[TensorInfo]:
        """The places in its own file."""
        return self.factors.values()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The base's config.json."""
        return self.base.config


def is_adapter(model_dir: Path) -> bool:
    """Whether a folder has an adapter."""
    return (model_dir / ADAPTER_CONFIG).is_file()


def open_adapter(
    name: str,
    model_dir: Path,
    source: str,
    base: Checkpoint,
    model: PreTrainedModel,
    layout: Layout,
) -> Adapter:
    """Open an adapter of the pool's base.

    Args:
        name: How the search calls it.
        model_dir: Its folder.
        source: What the configuration said.
        base: By the model's names, of the layout's shapes.
        model: The base's modules; may be on the meta device.
        layout: The base's.

    Raises:
        InputError: It is damaged, of another base, or of a form that is not supported.
    """
    file_path = model_dir / ADAPTER_FILE
    for whole in (SINGLE_FILE, INDEX_FILE):
        if (model_dir / whole).is_file():
            raise InputError(
                f"model {name!r}: {model_dir} has a whole model ({whole}) and an adapter "
                f"({ADAPTER_CONFIG}); move one of them to another folder"
            )
    if not file_path.is_file():
        pickles = sorted(path.name for path in model_dir.glob("*.bin"))
        found = f": found only {', '.join(pickles[:3])} (pickle: never loaded)" if pickles else ""
        raise InputError(
            f"model {name!r}: {file_path} is missing{found}\n"
            "save the adapter again with safe_serialization=True"
        )
    settings = read_settings(name, model_dir / ADAPTER_CONFIG)
    reader = _Reader(name, file_path, settings, model)
    factors = read_header(name, file_path)
    if not factors:
        raise InputError(f"model {name!r}: {file_path} has no tensors")
    modules, own = reader.sort(factors)
    updates = dict(reader.updates(modules, factors))
    tensors = {n: base.tensors[n] for n in layout.places} | own
    starts = {}
    for changed in updates:
        tensors[changed] = TensorInfo(file_path, changed, layout.shapes[changed], "F32")
        if changed not in base.tensors:  # a tied head that the base does not store
            starts[changed] = layout.embedding
    return Adapter(
        name,
        model_dir,
        source,
        tensors,
        base=base,
        updates=updates,
        factors=factors,
        own=own,
        _starts=starts,
    )


def warn_of_doubts(adapter: Adapter, layout: Layout) -> None:
    """Log what may be meant and may be a mistake."""
    settings = read_settings(adapter.name, adapter.model_dir / ADAPTER_CONFIG)
    hint = settings.base_model_name_or_path or ""
    base_name = adapter.base.source.partition("@")[0].rstrip("/").rpartition("/")[2]
    # The hub's cache calls a folder models--OWNER--NAME.
    if hint and base_name not in re.split(r"/|--", hint):
        _log.warning(
            "adapter %r was made for %r; the pool's base is %r: if these are different models, "
            "what it gives is wrong",
            adapter.name,
            hint,
            adapter.base.source,
        )
    changed = adapter.updates.keys() | adapter.own.keys()
    embedding = layout.embedding
    if layout.tied and embedding in changed and not layout.tied & changed:
        _log.warning(
            "adapter %r changes %r, and the base's head is tied to it: the head changes with it, "
            "as when PEFT merges such an adapter",
            adapter.name,
            embedding,
        )


class _Reader:
    """Understands the names in an adapter's file."""

    def __init__(
        self, name: str, file_path: Path, settings: LoraSettings, model: PreTrainedModel
    ) -> None:
        self.name = name
        self.file_path = file_path
        self.settings = settings
        self.model = model
        self.state = model.state_dict()
        self.rename = LoadingRules.of(model).rename

    def sort(
        self, factors: dict[str, TensorInfo]
    ) -> tuple[dict[str, dict[str, str]], dict[str, TensorInfo]]:
        """Keys of factors by module and role, and the tensors that are stored whole."""
        modules: dict[str, dict[str, str]] = {}
        own: dict[str, TensorInfo] = {}
        saved = set(self.settings.modules_to_save or ())
        for key, info in factors.items():
            path = key.removeprefix("base_model.model.")
            found = _FACTOR.fullmatch(path)
            if found is None:
                tensor_name = self._in_base(path.replace(".base_layer.", "."), key)
                self._check_shape(key, info.shape, tuple(self.state[tensor_name].shape))
                own[tensor_name] = info
                saved -= {module for module in saved if module in tensor_name}
                continue
            role = found["matrix"] or found["table"] or ("m" if found["magnitude"] else "bias")
            modules.setdefault(found["module"], {})[role] = key
        if saved:
            raise InputError(
                f"model {self.name!r}: {self.file_path} has no tensor of {sorted(saved)[0]!r}, "
                f"which {ADAPTER_CONFIG} names in modules_to_save"
            )
        return modules, own

    def updates(
        self, modules: dict[str, dict[str, str]], factors: dict[str, TensorInfo]
    ) -> Iterator[tuple[str, Update]]:
        """What the adapter does, by tensor name."""
        for module, keys in modules.items():
            some_key = next(iter(keys.values()))
            weight = self._in_base(f"{module}.weight", some_key)
            wanted = ("A", "B", "m") if self.settings.use_dora else ("A", "B")
            for role in wanted:
                if role not in keys:
                    what = "lora_magnitude_vector" if role == "m" else f"lora_{role}"
                    raise InputError(
                        f"model {self.name!r}: {self.file_path} has {some_key!r} and no {what} "
                        "beside it: it is not whole; save or download it again"
                    )
            if "m" in keys and not self.settings.use_dora:
                raise InputError(
                    f"model {self.name!r}: {self.file_path} has {keys['m']!r}, but "
                    f"{ADAPTER_CONFIG} does not say use_dora"
                )
            is_transposed = self._is_transposed(weight, keys["A"])
            shape = tuple(self.state[weight].shape)
            out_size, in_size = shape[::-1] if is_transposed else shape
            rank, scale = self.settings.rank(module), self.settings.scale(module)
            self._check_shape(keys["A"], factors[keys["A"]].shape, (rank, in_size))
            self._check_shape(keys["B"], factors[keys["B"]].shape, (out_size, rank))
            for role in ("m", "bias"):
                if role in keys:
                    self._check_shape(keys[role], factors[keys[role]].shape, (out_size,))
            yield weight, LowRank(tuple(keys[role] for role in wanted), scale, is_transposed)
            if "bias" in keys:
                bias = self._in_base(f"{module}.bias", keys["bias"])
                yield bias, Shift((keys["bias"],), scale)

    def _in_base(self, tensor_name: str, key: str) -> str:
        """The base's name of a tensor; some models were renamed since their adapters were made."""
        if tensor_name not in self.state:
            tensor_name = self.rename(tensor_name)[0]
        if tensor_name not in self.state:
            raise InputError(
                f"model {self.name!r}: {self.file_path} has {key!r}, and the base no "
                f"{tensor_name!r}: it is an adapter of another base, or of an unsupported form"
            )
        return tensor_name

    def _is_transposed(self, weight: str, key: str) -> bool:
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        module = self.model.get_submodule(weight.rpartition(".")[0])
        is_embedding = isinstance(module, nn.Embedding)
        if is_embedding != ("lora_embedding_" in key) or not (
            is_embedding or isinstance(module, nn.Linear | Conv1D)
        ):
            raise InputError(
                f"model {self.name!r}: {self.file_path} has {key!r}, and the base's module is a "
                f"{type(module).__name__}: adapters of such modules are not supported"
            )
        # As PEFT, by the module and not by `fan_in_fan_out`, which people leave out.
        return not isinstance(module, nn.Linear)

    def _check_shape(self, key: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if shape != expected:
            raise InputError(
                f"model {self.name!r}: {self.file_path}: {key!r} has shape {list(shape)}, the base "
                f"and {ADAPTER_CONFIG} ask for {list(expected)}: it is an adapter of another base, "
                "or its configuration is another adapter's"
            )
