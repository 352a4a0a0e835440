"""Slices that merge layers of different numbers, or of models of different depths."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from safetensors.torch import load_file

from commands import run_here
from evomerge.errors import InputError
from evomerge.models import chain
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from fixtures import save_model
from mergekit_configurations import CONFIGURATIONS

BLOCK = re.compile(r"\.layers\.(\d+)\.")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where models are kept that are built for others."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(chain, "user_cache_path", lambda name: folder / name)
    return folder / "evomerge/merges"


def of_layers(tensors, order):
    """By name, with a model's layers in another order; what lies outside stays."""
    found = {name: tensor for name, tensor in tensors.items() if not BLOCK.search(name)}
    for place, layer in enumerate(order):
        for name, tensor in tensors.items():
            match = BLOCK.search(name)
            if match and int(match[1]) == layer:
                found[BLOCK.sub(f".layers.{place}.", name)] = tensor
    return found


def weights(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return dict(recipe_tensors(*open_mergekit(path)))


def test_layers_of_different_numbers(here, tmp_path, cache, caplog):
    text = CONFIGURATIONS["linear, layers of different numbers"]
    with caplog.at_level(logging.WARNING, logger="evomerge"):
        found = weights(tmp_path, text)
    (said,) = (r.getMessage() for r in caplog.records if "stacked" in r.getMessage())
    assert "2 models are stacked first" in said and str(cache) in said
    first = of_layers(load_file(here / "pool/expert0/model.safetensors"), [0, 1, 2, 0, 1, 2])
    other = of_layers(load_file(here / "pool/expert1/model.safetensors"), [1, 2, 3, 1, 2, 3])
    assert found.keys() == first.keys()
    for name, tensor in found.items():
        match = BLOCK.search(name)
        late = int(match[1]) >= 3 if match else "embed" not in name
        share = 0.25 if late else 0.75
        expected = share * first[name].double() + (1 - share) * other[name].double()
        torch.testing.assert_close(tensor, expected.float())


def test_a_layer_that_is_made_in_two_ways(here, tmp_path):
    """One merged model cannot have it; stacks can."""
    found = weights(tmp_path, CONFIGURATIONS["slerp, a layer in two ways"])
    one, two = (weights(tmp_path, SLERP.format(t=t)) for t in (0.3, 0.7))
    for name, tensor in found.items():
        match = BLOCK.search(name)
        if match is None:
            assert torch.equal(tensor, (one if "embed" in name else two)[name])
        else:
            source = one if int(match[1]) < 3 else two
            layer = int(match[1]) if int(match[1]) < 3 else int(match[1]) - 2
            assert torch.equal(tensor, source[BLOCK.sub(f".layers.{layer}.", name)])


SLERP = """
merge_method: slerp
base_model: pool/expert0
parameters: {{t: {t}}}
models: [{{model: pool/expert0}}, {{model: pool/expert1}}]
"""

DEPTHS = """
merge_method: passthrough
slices:
- sources: [{{model: pool/expert0, layer_range: [0, 3]}}]
- sources: [{{model: {deep}, layer_range: [2, 6]}}]
"""


def test_models_of_different_depths(here, tmp_path):
    save_model(tmp_path / "deep", seed=7, num_hidden_layers=6)
    found = weights(tmp_path, DEPTHS.format(deep=tmp_path / "deep"))
    shallow = load_file(here / "pool/expert0/model.safetensors")
    deep = load_file(tmp_path / "deep/model.safetensors")
    first, other = of_layers(shallow, [0, 1, 2] * 2 + [0]), of_layers(deep, [0, 1, 2, 2, 3, 4, 5])
    for name, tensor in found.items():
        match = BLOCK.search(name)
        late = int(match[1]) >= 3 if match else "embed" not in name
        assert torch.equal(tensor, (other if late else first)[name]), name


def test_filters_know_a_layer_by_its_number_in_the_result(here, tmp_path):
    """Those of all models; a model's own know it by its number there."""
    name = "slerp, filters know a layer by its number in the result"
    found = weights(tmp_path, CONFIGURATIONS[name])
    some, other = (weights(tmp_path, SLERP.format(t=t)) for t in (0.2, 0.9))
    for name, tensor in found.items():
        match = BLOCK.search(name)
        there = BLOCK.sub(f".layers.{int(match[1]) + 1}.", name) if match else name
        assert torch.equal(tensor, (other if "layers.2.mlp" in name else some)[there]), name


def test_the_command_builds_it(workspace, tmp_path):
    """Layers of an adapter on the base, against others of the base."""
    path = tmp_path / "config.yaml"
    path.write_text("""
merge_method: task_arithmetic
base_model: pool/base
slices:
- sources:
  - {model: pool/base, layer_range: [0, 3]}
  - {model: pool/base+pool/lora, layer_range: [1, 4], parameters: {weight: 0.5}}
""")
    run = run_here("build", path, "--out", tmp_path / "out", cwd=workspace)
    assert run.returncode == 0, run.stderr
    loaded = load_file(tmp_path / "out/model.safetensors")
    assert {int(m[1]) for m in map(BLOCK.search, loaded) if m} == {0, 1, 2}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (([0, 3], [1, 3]), r"slices.0: sources have 3 layers of 'pool/expert0', 2 layers of"),
        (([0, 3], [2, 5]), r"layer_range: 'pool/expert1' has layers 0 to 3, got \[2, 5\]"),
    ],
)
def test_refused(here, tmp_path, ranges, message):
    first, second = ranges
    with pytest.raises(InputError, match=message):
        weights(
            tmp_path,
            f"""
merge_method: linear
parameters: {{weight: 0.5}}
slices:
- sources:
  - {{model: pool/expert0, layer_range: {first}}}
  - {{model: pool/expert1, layer_range: {second}}}
""",
        )
