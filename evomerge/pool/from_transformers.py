"""The one place where transformers reads a model's folder, or makes a model of a configuration.

Nobody is asked whether code of a folder may run, nothing is fetched from a hub, and whatever
transformers and its libraries raise is one message. `with_code` is true of models whose code a
configuration trusts, and of no other.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.pool.sentence_pieces import is_read_alike, needs_a_class
from evomerge.reading import first_line

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

MOST_LAYERS = 2048
"""More than any model has; transformers makes a list of as many before anything else."""

MOST_EXPERTS = 1 << 20
"""Layers times experts."""

OF_LAYERS = {
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers",
    "num_decoder_layers", "num_encoder_layers",
}  # fmt: skip

OF_EXPERTS = {
    "num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts", "moe_num_experts",
}  # fmt: skip


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "tekken.json",
)
"""Where some tokenizer says its tokens, or its class."""


def config_in(folder: Path, shown: Path, *, with_code: bool = False) -> PreTrainedConfig:
    """The configuration of a model.

    Args:
        folder: Where its config.json lies.
        shown: The model's own folder, for messages; it is the configuration's `name_or_path`.
        with_code: Whether its own code may run.

    Raises:
        InputError: It cannot be read, or its architecture is not known to transformers.
    """
    from transformers import AutoConfig, PreTrainedConfig

    config = _read(AutoConfig, folder, shown, "", trust_remote_code=with_code)
    assert isinstance(config, PreTrainedConfig)
    config.name_or_path = str(shown)
    return config


def tokenizer_in(folder: Path, shown: Path, *, with_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; arguments as of `config_in`.

    Raises:
        InputError: It has none, or one that cannot be read.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    if not any(path.match(name) for path in folder.iterdir() for name in TOKENIZER_FILES):
        raise InputError(
            f"{shown}: has no tokenizer (no {', '.join(TOKENIZER_FILES)})\n"
            "copy the tokenizer's files there from the model that it was made from"
        )
    tokenizer: PreTrainedTokenizerBase = _read(
        AutoTokenizer, folder, shown, "has no tokenizer: ", trust_remote_code=with_code
    )
    if needs_a_class(folder) and not is_read_alike(tokenizer, folder):
        tokenizer = _read(LlamaTokenizer, folder, shown, "has no tokenizer: ")
        if not is_read_alike(tokenizer, folder):
            raise InputError(
                f"{shown}: transformers reads its tokenizer.model otherwise than SentencePiece\n"
                "valid: a tokenizer_config.json that names its tokenizer_class, or a tokenizer.json"
            )
    tokenizer.name_or_path = str(shown)
    return tokenizer


def generation_config_in(folder: Path) -> GenerationConfig:
    """A model's settings for generation.

    Raises:
        InputError: They cannot be read.
    """
    from transformers import GenerationConfig

    config: GenerationConfig = _read(GenerationConfig, folder, folder, "generation_config.json: ")
    return config


def model_in(folder: Path, model_class: Any = None, *, with_code: bool = False) -> PreTrainedModel:
    """A model with its weights.

    Args:
        folder: Where it lies.
        model_class: Its class, where it is none of transformers'.
        with_code: Whether its own code may run.

    Raises:
        InputError: It cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    kind = AutoModelForCausalLM if model_class is None else model_class
    # The class itself asks for nothing that it might run.
    settings = {"trust_remote_code": with_code} if model_class is None else {}
    model: PreTrainedModel = _read(kind, folder, folder, "", **settings)
    return model


def quantized_in(folder: Path, shown: Path, gguf_file: str | None) -> PreTrainedModel:
    """A quantized model, with its weights as floats.

    Args:
        folder: Where it lies, without code.
        shown: The model's own folder or file, for messages.
        gguf_file: The name of its GGUF file, if it is one.

    Raises:
        InputError: It cannot be loaded here, or stays quantized.
    """
    from transformers import AutoModelForCausalLM

    settings = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        model: Any = _read(
            AutoModelForCausalLM,
            folder,
            shown,
            "",
            dtype="auto",
            trust_remote_code=False,
            **settings,
        )
    except InputError as error:
        if "CONVERSION" not in str(error):
            raise
        # Its report is not of use without what was printed above it.
        raise InputError(
            f"{shown}: transformers cannot convert its tensors: layers in different schemes, say"
        ) from None
    # transformers has read a GGUF file as floats.
    if gguf_file is None and getattr(model, "is_quantized", False):
        model = model.dequantize()
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            raise InputError(f"{shown}: tensor {name!r} stays {tensor.dtype}")
    # What is saved is not quantized any more, and nothing of its loading is undone.
    model.hf_quantizer, model.is_quantized, model._weight_conversions = None, False, None
    for field in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, field):
            delattr(model.config, field)
    loaded: PreTrainedModel = model
    return loaded


def gguf_tokenizer_in(folder: Path, gguf_file: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file.

    Raises:
        InputError: It has none that transformers knows.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = _read(
        AutoTokenizer, folder, folder, "", gguf_file=gguf_file, trust_remote_code=False
    )
    return tokenizer


def model_of(
    config: PreTrainedConfig, *, with_code: bool = False, **settings: Any
) -> PreTrainedModel:
    """A model of a configuration, with numbers of its class's own making.

    Args:
        config: The configuration.
        with_code: Whether the code of its folder may run.
        settings: Such as `dtype`.

    Raises:
        InputError: Its fields do not go together.
    """
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=with_code, **settings
        )
    # Fields that do not go together end in errors of every kind.
    except Exception as error:  # noqa: BLE001
        raise InputError(f"{config.name_or_path}: {first_line(error)}") from None
    return model


def check_sizes(folder: Path, told: Any) -> None:
    """Refuse numbers of layers and experts that no model has, before anything is made of them.

    Args:
        folder: The model's, for the message.
        told: What its config.json says.

    Raises:
        InputError: There is such a number.
    """
    layers, experts = _largest(told, OF_LAYERS), _largest(told, OF_EXPERTS)
    for (key, number), most in (
        (layers, MOST_LAYERS),
        (experts, MOST_EXPERTS // max(1, layers[1])),
    ):
        if number > most:
            raise InputError(f"{folder}: config.json says {key}: {number:,}; valid: up to {most:,}")


def _largest(told: Any, fields: Collection[str]) -> tuple[str, int]:
    """The largest integer of some fields at any depth, and its field."""
    found = ("", 0)
    waiting = [told]
    while waiting:
        current = waiting.pop()
        if isinstance(current, list):
            waiting += current
        elif isinstance(current, dict):
            waiting += current.values()
            for key, value in current.items():
                if key in fields and type(value) is int and value > found[1]:
                    found = (key, value)
    return found


def _read(kind: Any, folder: Path, shown: Path, cannot: str, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **settings)
    # Broken files end in errors of every kind, tokenizers' in bare exceptions.
    except Exception as error:  # noqa: BLE001
        reason = first_line(error).replace(str(folder), str(shown))
        raise InputError(f"{shown}: {cannot}{reason}") from None
