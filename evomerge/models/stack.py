"""What is stored of a path: its distinct layers, and how a checkpoint says in which order to run.

A plain checkpoint is the model class's own, with as many layers as the path has hops. Where that
is not exact (a hop has a scale, or the class makes a layer of another kind at its place), or a
layer would be stored several times and `stored: plain` does not ask for that, each layer is stored
once, `config.json` names the hops, and a modeling file beside the weights runs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES
from evomerge.models import modeling_path
from evomerge.models.kinds import misplaced
from evomerge.pool import Pool, config_of_checkpoint
from evomerge.pool.config_fields import fields_of_order
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
        InputError: It is to be plain, and a hop has a scale that is in no weight, or a layer that
            the class makes otherwise at its place.
    """
    hops = [(hop.model, hop.layer) for hop in path.hops]
    scales = [hop.scale for hop in path.hops]
    layers = list(dict.fromkeys(hops))
    embedding_scale = 1.0
    untied = not pool.layout.tied
    if untied and pool.base.config.get("model_type") in FOLDABLE:
        # Exactly the same: both multiply a row, in the result's type, before anything else.
        embedding_scale, scales[0] = scales[0], 1.0
    scaled = next((place for place, scale in enumerate(scales) if scale != 1.0), None)
    if path.stored == "plain":
        valid = "valid: the form with a file of code (no --plain)"
        if scaled is not None:
            raise InputError(
                f"path: hop {scaled} scales its input by {scales[scaled]:g}, which no plain "
                f"checkpoint can have\n{valid}, or hops without scales"
            )
        wrong = misplaced(pool, [layer for _, layer in hops])
        if wrong is not None:
            raise InputError(
                f"path: hop {wrong} runs layer {hops[wrong][1]}, and {_class_name(pool)} makes a "
                f"layer of another kind at that place\n{valid}"
            )
        order = tuple(range(len(hops)))
        return Stack(tuple(hops), order, tuple(scales), embedding_scale, is_plain=True)
    is_plain = len(layers) == len(hops) and scaled is None
    is_plain = is_plain and misplaced(pool, [layer for _, layer in hops]) is None
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

    prefix = pool.layout.layers
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
    fields = fields_of_order(config, [hop.layer for hop in path.hops])
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
            **_own_fields(pool, [layer for _, layer in stored.layers]),
        }
    return fields


def _own_fields(pool: Pool, layers: Sequence[int]) -> dict[str, Any]:
    """What the modeling file is told where the class makes other kinds of layers than are stored.

    Args:
        pool: The models.
        layers: The model's own layer of each stored one.
    """
    config = config_of_checkpoint(pool.base)
    own = fields_of_order(config, range(pool.layout.num_layers))
    if len(own) <= 1 + ("layer_types" in own) and misplaced(pool, layers) is None:
        return {}
    return {"stored_layers": list(layers), "own_layers": own}


def _class_name(pool: Pool) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config_of_checkpoint(pool.base).model_type]


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
            "layers_name": pool.layout.layers,
        },
    )


def stack_files(pool: Pool, path: LayerPath) -> dict[str, str]:
    """Texts of the files that go with a path's checkpoint, by name."""
    files = {}
    if not stack(pool, path).is_plain:
        config = config_of_checkpoint(pool.base)
        classes = CLASSES.format(
            config=type(config).__name__,
            model=_class_name(pool),
            model_type=config.model_type,
            layers=pool.layout.layers,
        )
        files[MODELING_FILE] = inspect.getsource(modeling_path) + classes
    return files
