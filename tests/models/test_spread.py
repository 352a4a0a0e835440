"""Which device each layer of a model is on; what runs there is in tests/workers/test_device.py."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from evomerge.errors import InputError
from evomerge.models.spread import fullest, runs, spread
from evomerge.pool.layout import Layout, Place, layout_of
from fixtures import llama_config

META = torch.device("meta")


def layout(layers: list[int], outside: int) -> Layout:
    """A model whose layers have so many numbers."""
    places = {"embedding": Place(None, "embedding")}
    places |= {f"layers.{n}": Place(n, "other") for n in range(len(layers))}
    sizes = [outside, *layers]
    shapes = {name: (size,) for name, size in zip(places, sizes, strict=True)}
    return Layout(places, {}, len(layers), shapes, "embedding", "layers")


@pytest.mark.parametrize(
    ("layers", "outside", "num_devices", "expected", "most"),
    [
        ([10] * 4, 0, 2, [0, 0, 1, 1], 20),
        ([10] * 4, 20, 2, [0, 1, 1, 1], 30),
        ([10] * 4, 40, 2, [1, 1, 1, 1], 40),
        ([10] * 6, 0, 3, [0, 0, 1, 1, 2, 2], 20),
        ([30, 10, 10, 10], 0, 2, [0, 1, 1, 1], 30),
        ([10], 10, 4, [3], 10),
        ([10] * 4, 7, 1, [0, 0, 0, 0], 47),
    ],
)
def test_every_device_has_about_as_much(layers, outside, num_devices, expected, most):
    made = layout(layers, outside)
    assert runs(made, num_devices) == expected
    assert fullest(made, num_devices) == most


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda layers: layers.append(torch.nn.Identity()), "LlamaForCausalLM has no list of"),
        (
            lambda layers: setattr(layers[1], "mlp", layers[0].mlp),
            "LlamaForCausalLM has layers that share tensors",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused(change, says):
    model = LlamaForCausalLM(llama_config(num_hidden_layers=2))
    made = layout_of(model)
    change(model.model.layers)
    # The layers are moved one after the other, to where nothing has to be.
    with pytest.raises(InputError, match=says) as refused:
        spread(model, made, (torch.device("cpu"), META))
    assert "valid: up to 1" in str(refused.value)
