"""Slices that merge layers of different numbers, or of models of different depths."""

from __future__ import annotations

import json
import logging
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from commands import run_here
from evomerge.errors import InputError
from evomerge.models import chain
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.models.from_recipe import build_recipe
from fixtures import make_tokenizer, save_model
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
    assert f"in {cache}: pool/expert0 stacked, pool/expert1 stacked" in said
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


def test_a_place_is_filled_with_a_layer_of_its_kind(here, tmp_path):
    """Where a model is no source, and its own layer of that number is of another kind."""
    shallow, deep = (tmp_path / name for name in ("shallow", "deep"))
    for folder, depth in ((shallow, 4), (deep, 6)):
        types = ["sliding_attention"] * (depth - 1) + ["full_attention"]
        config = Gemma3TextConfig(
            vocab_size=12,
            hidden_size=16,
            intermediate_size=24,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            num_hidden_layers=depth,
            layer_types=types,
        )
        torch.manual_seed(depth)
        Gemma3ForCausalLM(config).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    text = DEPTHS.replace("pool/expert0", str(shallow)).replace("[0, 3]", "[0, 2]")
    found = weights(tmp_path, text.format(deep=deep).replace("[2, 6]", "[3, 6]"))
    theirs = load_file(deep / "model.safetensors")
    for name, tensor in found.items():
        match = BLOCK.search(name)
        if match and int(match[1]) >= 2:
            there = BLOCK.sub(f".layers.{int(match[1]) + 1}.", name)
            assert torch.equal(tensor, theirs[there]), name


@pytest.mark.parametrize("tokenizer", ["{tmp_path}/other", "./pool/expert1"])
def test_the_tokenizer_of_another_model(here, tmp_path, tokenizer):
    shutil.copytree(here / "pool/expert2", tmp_path / "other")
    settings_path = tmp_path / "other/tokenizer_config.json"
    settings = json.loads(settings_path.read_text()) | {"model_max_length": 77}
    settings_path.write_text(json.dumps(settings))
    named = tokenizer.format(tmp_path=tmp_path)
    text = CONFIGURATIONS["linear, layers of different numbers"] + "base_model: pool/expert0\n"
    plain = weights(tmp_path, text)
    told = weights(tmp_path, f"{text}tokenizer_source: {named}\n")
    assert all(torch.equal(told[name], plain[name]) for name in plain)
    build_recipe(tmp_path / "config.yaml", tmp_path / "out")
    built = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert (built.get("model_max_length") == 77) == named.endswith("other")


def test_a_folder_that_is_called_as_a_stack_would_be(here, tmp_path):
    save_model(tmp_path / "one", seed=5, num_hidden_layers=4)
    save_model(tmp_path / "one stacked", seed=6, num_hidden_layers=4)
    pieces = [("one stacked", [0, 2], 1.0), ("one", [0, 1], 0.5), ("one", [0, 1], 0.25)]
    lines = [
        f"- sources: [{{model: '{tmp_path / name}', layer_range: {span}, "
        f"parameters: {{scale: [{{filter: o_proj, value: {scale}}}, {{value: 1}}]}}}}]"
        for name, span, scale in pieces
    ]
    found = weights(tmp_path, "\n".join(["merge_method: passthrough", "slices:", *lines]))
    one, stacked = (
        load_file(tmp_path / name / "model.safetensors") for name in ("one", "one stacked")
    )
    for place, (theirs, scale) in enumerate([(stacked, 1), (stacked, 1), (one, 0.5), (one, 0.25)]):
        name = "model.layers.{}.self_attn.o_proj.weight"
        layer = place if place < 2 else 0
        assert torch.equal(found[name.format(place)], theirs[name.format(layer)] * scale)


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


LINEAR = """
merge_method: linear
{more}
slices:
- sources:
  - {{model: pool/expert0, layer_range: [0, 3]}}
  - {{model: {other}, layer_range: {span}}}
"""
WEIGHT = "parameters: {weight: 0.5}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"span": [1, 3]}, r"slices.0: sources have 3 layers of 'pool/expert0', 2 layers of"),
        ({"span": [2, 5]}, r"layer_range: 'pool/expert1' has layers 0 to 3, got \[2, 5\]"),
        ({"more": ""}, r"parameters: 'weight' is missing"),
        ({"other": "WIDE"}, r"'.*wide' has hidden_size 32, 'pool/expert0' has 16: models of one"),
        (
            {"more": WEIGHT + "\ntokenizer: {source: base, tokens: {a: {source: pool/expert2}}}"},
            "'pool/expert2' is none of the merged models; valid: pool/expert0, pool/expert1",
        ),
        ({"other": "pool/lora"}, "is an adapter; write 'pool/expert0\\+pool/lora'"),
    ],
)
def test_refused(here, tmp_path, cache, changes, message):
    """Before anything is written."""
    save_model(tmp_path / "wide", 3, hidden_size=32, num_hidden_layers=4)
    fields = {"more": WEIGHT, "other": "pool/expert1", "span": [1, 4]} | changes
    text = LINEAR.format(**fields).replace("WIDE", str(tmp_path / "wide"))
    with pytest.raises(InputError, match=message):
        weights(tmp_path, text)
    assert not cache.exists()
