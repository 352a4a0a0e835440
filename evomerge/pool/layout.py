"""What a layer, an embedding, a norm and a head are, read from the transformers model class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.errors import InputError
from evomerge.pool.components import RULES, Rules, component_in_block
from evomerge.pool.foreign_code import (
    CONFIG_FILE,
    TOKENIZER_CONFIG,
    config_dir_without_code,
    named_code,
    refuse_code_of_others,
)
from evomerge.pool.from_transformers import check_sizes, config_in, model_of
from evomerge.reading import read_json
from evomerge.recipe import Component

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from evomerge.pool.checkpoint import Checkpoint


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs: its transformer block (None: outside) and its kind."""

    layer: int | None
    component: Component


@dataclass(frozen=True)
class Layout:
    """The places of a model's tensors.

    Attributes:
        places: By tensor name, in the model's own order; tied aliases are left out.
        aliases: By name of a tensor that has another's storage (a tied head): that other's name.
        num_layers: Transformer blocks.
        shapes: Each tensor's shape by name, aliases included.
        embedding: Name of the tensor with a row for each token, that a tied head is an alias of.
        layers: Name of the list of transformer blocks; empty where there is none.
        rules: The first version of the rules by which kinds are read that gives these.
    """

    places: dict[str, Place]
    aliases: dict[str, str]
    num_layers: int
    shapes: dict[str, tuple[int, ...]]
    embedding: str
    layers: str
    rules: Rules = 1

    @cached_property
    def tied(self) -> frozenset[str]:
        """Names of aliases."""
        return frozenset(self.aliases)

    @cached_property
    def num_parameters(self) -> int:
        """Numbers in the model, tied ones counted once."""
        total = 0
        for name in self.places:
            count = 1
            for size in self.shapes[name]:
                count *= size
            total += count
        return total


def read_config(model_dir: Path, *, trusted: bool = False) -> PreTrainedConfig:
    """The transformers configuration of a model folder.

    What it says of the folder's own code is left out, unless the code may run.

    Args:
        model_dir: The folder.
        trusted: Whether its code may run.

    Raises:
        InputError: The folder has none, or its architecture is not known to transformers.
    """
    check_sizes(model_dir, read_json(model_dir / CONFIG_FILE))
    if trusted:
        for name in (CONFIG_FILE, TOKENIZER_CONFIG):
            refuse_code_of_others(model_dir / name)
        return config_in(model_dir, shown=model_dir, with_code=True)
    with config_dir_without_code(model_dir) as config_dir:
        try:
            return config_in(config_dir, shown=model_dir)
        except InputError as error:
            raise InputError(f"{error}{_of_code(model_dir)}") from None


def config_of_checkpoint(checkpoint: Checkpoint) -> PreTrainedConfig:
    """See `read_config`."""
    return read_config(checkpoint.model_dir, trusted=checkpoint.trusted)


def has_model_code(config: PreTrainedConfig) -> bool:
    """Whether a configuration names a language model of its folder's code."""
    names = getattr(config, "auto_map", None)
    return isinstance(names, dict) and "AutoModelForCausalLM" in names


def _of_code(model_dir: Path) -> str:
    code = named_code(model_dir / CONFIG_FILE)
    if code is None:
        return ""
    return (
        f"\nits {CONFIG_FILE} names code ({code}), which is never run unless "
        "pool.trust_remote_code names the model; valid: a model whose class transformers has"
    )


def hollow_model(model_dir: Path, *, trusted: bool = False) -> PreTrainedModel:
    """The modules of a folder's model, without memory for its numbers; arguments as above.

    Raises:
        InputError: See `read_config`; or transformers has no class for the whole model that
            reads and writes text.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = read_config(model_dir, trusted=trusted)
    has_code = trusted and has_model_code(config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not has_code:
        raise _not_text_only(model_dir, config)
    with torch.device("meta"):
        model = model_of(config, with_code=has_code)
    if type(model.config) is not type(config):
        # transformers gives the text part alone, and all else in the files would be lost.
        raise _not_text_only(model_dir, config)
    return model


def _not_text_only(model_dir: Path, config: PreTrainedConfig) -> InputError:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    what = f"{', '.join(config.architectures or [])} (model_type {config.model_type!r})"
    parts = ", ".join(name for name in config.sub_configs if name != "text_config")
    if not parts:
        return InputError(
            f"{model_dir}: {what} is no causal language model of transformers{_of_code(model_dir)}"
            "\nvalid: a model whose class is a ...ForCausalLM"
        )
    text_type = getattr(getattr(config, "text_config", None), "model_type", "")
    text_class = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text_type)
    example = f", such as {text_class} (model_type {text_type!r})" if text_class else ""
    writes = (
        f"\n`AutoModelForCausalLM.from_pretrained({str(model_dir)!r}).save_pretrained(folder)` "
        "writes one"
    )
    return InputError(
        f"{model_dir}: {what} has other parts than text ({parts}), and transformers has no causal "
        f"language model of all its tensors: an export would lack some{_of_code(model_dir)}\n"
        f"valid: a checkpoint of its text model alone, whose class is a ...ForCausalLM{example}"
        f"{writes if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else ''}"
    )


def layout_of(model: PreTrainedModel, rules: Rules = RULES) -> Layout:
    """The places of a model's persistent tensors.

    Args:
        model: May be on the meta device.
        rules: By which kinds are read.
    """
    state = model.state_dict(keep_vars=True)
    seen: dict[int, str] = {}
    aliases = {}
    # A tied head shares its Parameter object with the input embeddings.
    for name, tensor in state.items():
        if seen.setdefault(id(tensor), name) != name:
            aliases[name] = seen[id(tensor)]
    blocks = blocks_prefix(model)
    num_layers = int(model.config.num_hidden_layers) if blocks else 0
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    places = {}
    tells = False
    for name in state:
        if name in aliases:
            continue
        owner_name = name.rpartition(".")[0]
        owner = model.get_submodule(owner_name)
        layer: int | None = None
        component: Component
        if blocks and name.startswith(blocks):
            index, _, rest = name[len(blocks) :].partition(".")
            layer = int(index)
            block = model.get_submodule(f"{blocks}{index}")
            component = component_in_block(rest, block, rules)
            tells |= component != component_in_block(rest, block, 1)
        elif owner is embedding or type(owner).__name__ == "Embedding":
            component = "embedding"
        elif owner is head:
            component = "head"
        else:
            component = "norm" if "norm" in type(owner).__name__.lower() else "other"
        places[name] = Place(layer, component)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    rows = _embedding_tensor(model)
    return Layout(
        places,
        aliases,
        num_layers,
        shapes,
        embedding=seen[id(state[rows])],
        layers=blocks.removesuffix("."),
        rules=rules if tells else 1,
    )


def _embedding_tensor(model: PreTrainedModel) -> str:
    """Name of the input embedding's tensor; not a position's, or a part's that reads images."""
    embedding = model.get_input_embeddings()
    for name in model.state_dict():
        if model.get_submodule(name.rpartition(".")[0]) is embedding:
            return name
    raise InputError(
        f"{type(model).__name__}: its input embedding ({type(embedding).__name__}) has no tensor "
        "of its own, so that a token's row is not known; expected a module with one weight"
    )


def blocks_prefix(model: PreTrainedModel) -> str:
    """Name of the list of transformer blocks with a dot behind it; empty when there is none."""
    from torch.nn import ModuleList

    wanted = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == wanted:
            return f"{name}."
    return ""
