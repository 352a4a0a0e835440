"""What is stored of a path: its distinct layers, and how a checkpoint says in which order to run.

A plain checkpoint is the model class's own, with as many layers as the path has hops. Where that
is not exact (a hop has a scale), or a layer would be stored several times and `stored: plain` does
not ask for that, each layer is stored once, `config.json` names the hops, and a modeling file
beside the weights runs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES
from evomerge.models import modeling_path
from evomerge.pool import Pool, config_of_checkpoint, layers_name
from evomerge.recipe import MERGED, LayerPath, Recipe

MODELING_FILE = "modeling_path.py"

FOLDABLE = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")
"""Families whose first layer reads the embedding's rows as they are: its scale can be theirs."""

CLASSES = '''

from transformers import {config}, {model}


class PathConfig({config}):
    """{config} with `input_layers` and `input_scales`."""

    model_type = "{model_type}_path"


class PathForCausalLM(PathMixin, {model}):
    """{model} that runs a path through its layers."""

    config_class = PathConfig
    layers_name = "{layers}"
'''


@dataclass(frozen=True)
class Stack:
    """A path as a checkpoint stores it.

    Attributes:
        layers: Each stored layer's model and number, in order of first use.
        input_layers: The stored layer of each hop.
        input_scales: The scale of each hop.
        embedding_scale: What the input embedding is multiplied by.
        is_plain: Whether the model class itself runs it.
    """

    layers: tuple[tuple[str, int], ...]
    input_layers: tuple[int, ...]
    input_scales: tuple[float, ...]
    embedding_scale: float
    is_plain: bool


def stack(pool: Pool, path: LayerPath) -> Stack:
    """How a path is stored.

    Raises:
        InputError: It is to be plain, and a hop has a scale that is in no weight.
    """
    hops = [(hop.model, hop.layer) for hop in path.hops]
    scales = [hop.scale for hop in path.hops]
    layers = list(dict.fromkeys(hops))
    embedding_scale = 1.0
    untied = not pool.layout.tied
    if untied and pool.base.config.get("model_type") in FOLDABLE:
        # Exactly the same: both multiply a row, in the result's type, before anything else.
        embedding_scale, scales[0] = scales[0], 1.0
    is_exact = all(scale == 1.0 for scale in scales)
    if path.stored == "plain":
        if not is_exact:
            place, scale = next((n, s) for n, s in enumerate(scales) if s != 1.0)
            raise InputError(
                f"path: hop {place} scales its input by {scale:g}, which no plain checkpoint can "
                "have\nvalid: hops without scales, or the form with a file of code (no --plain)"
            )
        order = tuple(range(len(hops)))
        return Stack(tuple(hops), order, tuple(scales), embedding_scale, is_plain=True)
    is_plain = len(layers) == len(hops) and is_exact
    if not is_plain:
        embedding_scale, scales[0] = 1.0, path.hops[0].scale
    order = tuple(layers.index(hop) for hop in hops)
    return Stack(tuple(layers), order, tuple(scales), embedding_scale, is_plain)


def stack_tensors(
    pool: Pool, recipe: Recipe, merged: Callable[[str], Tensor] | None
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a path's checkpoint, by their names in the model.

    Args:
        pool: The recipe's models.
        recipe: One with a path.
        merged: Gives a tensor of the merged model by name, if there is one.
    """
    path = recipe.path
    assert path is not None
    stored = stack(pool, path)
    dtype = TORCH_DTYPES[recipe.dtype]

    def tensor(model: str, name: str) -> Tensor:
        if model == MERGED:
            assert merged is not None
            return merged(name)
        return pool[model].tensor(name).to(dtype)

    prefix = layers_name(pool.base.config, pool.base.model_dir)
    written: set[tuple[str, int]] = set()
    for name, place in pool.layout.places.items():
        if place.layer is None:
            outside = tensor(path.outer, name)
            scaled = place.component == "embedding" and stored.embedding_scale != 1.0
            yield name, outside * stored.embedding_scale if scaled else outside
    for number, (model, layer) in enumerate(stored.layers):
        for name, place in pool.layout.places.items():
            if place.layer == layer:
                rest = name.removeprefix(f"{prefix}.{layer}.")
                found = tensor(model, name)
                # Files of tensors refuse those that share memory.
                yield (
                    f"{prefix}.{number}.{rest}",
                    found.clone() if (model, layer) in written else found,
                )
        written.add((model, layer))


def stack_config(pool: Pool, path: LayerPath) -> dict[str, Any]:
    """The fields of config.json that a path changes."""
    stored = stack(pool, path)
    config = config_of_checkpoint(pool.base)
    names: dict[str, str] = config.attribute_map
    fields: dict[str, Any] = {names.get("num_hidden_layers", "num_hidden_layers"): len(path.hops)}
    types = getattr(config, "layer_types", None)
    if types is not None:
        fields["layer_types"] = [types[hop.layer] for hop in path.hops]
    if not stored.is_plain:
        fields |= {
            "model_type": f"{config.model_type}_path",
            "architectures": ["PathForCausalLM"],
            "auto_map": {
                "AutoConfig": "modeling_path.PathConfig",
                "AutoModelForCausalLM": "modeling_path.PathForCausalLM",
            },
            "input_layers": list(stored.input_layers),
            "input_scales": list(stored.input_scales),
        }
    return fields


def path_class(pool: Pool, path: LayerPath) -> Any:
    """The class that the modeling file of a path's checkpoint has; None where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if stack(pool, path).is_plain:
        return None
    config = type(config_of_checkpoint(pool.base))
    path_config = type("PathConfig", (config,), {"model_type": f"{config.model_type}_path"})
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[config]
    return type(
        "PathForCausalLM",
        (modeling_path.PathMixin, model),
        {
            "config_class": path_config,
            "layers_name": layers_name(pool.base.config, pool.base.model_dir),
        },
    )


def stack_files(pool: Pool, path: LayerPath) -> dict[str, str]:
    """Texts of the files that go with a path's checkpoint, by name."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    files = {}
    if not stack(pool, path).is_plain:
        config = config_of_checkpoint(pool.base)
        classes = CLASSES.format(
            config=type(config).__name__,
            model=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type],
            model_type=config.model_type,
            layers=layers_name(pool.base.config, pool.base.model_dir),
        )
        files[MODELING_FILE] = inspect.getsource(modeling_path) + classes
    return files
