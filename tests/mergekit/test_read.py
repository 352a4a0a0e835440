"""mergekit's configurations as recipes: what they come to, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mergekit_configurations import CONFIGURATIONS
from safetensors.torch import load_file

from evomerge.errors import InputError
from evomerge.mergekit import is_mergekit, open_mergekit
from evomerge.mergekit.models import model_entries, read_model
from evomerge.mergekit.values import Entry, Where
from evomerge.methods.linear import LinearConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Hop, LayerPath, Recipe, Selector, read_recipe


def read(folder: Path, text: str) -> Recipe:
    path = folder / "config.yaml"
    path.write_text(text)
    return open_mergekit(path)[1]


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as info:
        read(folder, text)
    message = str(info.value)
    assert str(folder / "config.yaml") in message
    return message


def changed(name: str, change) -> str:
    data = yaml.safe_load(CONFIGURATIONS[name])
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


class TestRecipes:
    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_is_an_ordinary_recipe(self, here, tmp_path, name):
        recipe = read(tmp_path, CONFIGURATIONS[name] + "dtype: bfloat16\n")
        assert recipe.dtype == "bfloat16"
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        assert read_recipe(path) == recipe
        assert is_mergekit(tmp_path / "config.yaml") and not is_mergekit(path)

    def test_every_option_is_said(self, here, tmp_path):
        recipe = read(tmp_path, CONFIGURATIONS["ties, rescaled, not normalized"])
        (part,) = recipe.parts
        assert part.method == TiesConfig(
            normalize=False, election="mass", rescale="l1", none_kept="refuse", vectors="same"
        )
        assert part.models == ("expert0", "expert1")
        assert part.parameters == {
            "weight": {"expert0": 0.5, "expert1": -0.7},
            "density": {"expert0": 0.4, "expert1": 0.6},
            "scale": 1.0,
        }

    def test_a_gradient_is_a_part_for_each_layer(self, here, tmp_path):
        text = """
merge_method: linear
base_model: pool/base
models:
  - {model: pool/base, parameters: {weight: 1.0}}
  - {model: pool/expert0, parameters: {weight: [{filter: mlp, value: [1, 4]}, {value: 0.5}]}}
"""
        *layers, rest = read(tmp_path, text).parts
        assert [part.select for part in layers] == [
            (Selector(layers=(layer,), names=("mlp",)),) for layer in range(4)
        ]
        weights = [part.parameters["weight"]["expert0"] for part in layers]
        assert weights == [1.0, 2.0, 3.0, 4.0]
        assert rest.select == () and rest.parameters["weight"] == {"base": 1.0, "expert0": 0.5}

    def test_a_stack_is_a_path(self, here, tmp_path):
        recipe = read(tmp_path, CONFIGURATIONS["passthrough, some layers"])
        assert recipe.parts == ()
        assert recipe.path == LayerPath(
            outer="base", hops=(Hop(model="base", layer=3), Hop(model="base", layer=0))
        )

    def test_layers_of_two_models_in_order_are_parts(self, here, tmp_path):
        text = """
merge_method: passthrough
slices:
  - sources: [{model: pool/expert0, layer_range: [0, 1]}]
  - sources: [{model: pool/expert1, layer_range: [1, 4]}]
"""
        recipe = read(tmp_path, text)
        assert recipe.path is None
        first, rest = recipe.parts
        assert first.select == (
            Selector(layers=(0,)),
            Selector(layers=("outside",), names=("model.embed_tokens.weight",)),
        )
        assert (first.models, rest.models) == (("base",), ("expert1",))
        assert first.method == LinearConfig(normalize=False)

    def test_names_of_models_are_made_different(self, here, tmp_path):
        text = """
merge_method: linear
models:
  - {model: pool/expert0, parameters: {weight: 1}}
  - {model: ./pool/expert1, parameters: {weight: 1}}
  - {model: pool/../pool/expert1, parameters: {weight: 1}}
"""
        recipe = read(tmp_path, text)
        assert list(recipe.members) == ["base", "expert1", "expert1-2"]

    def test_an_adapter_is_an_expert_of_its_model(self, here, tmp_path):
        recipe = read(tmp_path, CONFIGURATIONS["linear, adapters alone"])
        assert {name: Path(m.source).name for name, m in recipe.members.items()} == {
            "base": "base",
            "lora": "lora",
        }
        assert recipe.parts[0].models == ("lora", "base")

    def test_an_adapter_of_the_base_by_another_path(self, here, tmp_path):
        text = CONFIGURATIONS["task_arithmetic, an adapter and a whole model"]
        other = text.replace("pool/base+", "./pool/../pool/base+")
        assert read(tmp_path, other) == read(tmp_path, text)

    def test_parts_of_a_model_s_name(self, here):
        def entry(data):
            model = read_model(data, Where(here))
            _, found = model_entries(["base", model], here).values()
            return model, found.source, found.revision, found.name

        assert entry("a/b@c") == ("a/b@c", "a/b", "c", "b")
        assert entry("a/b@c+d/e@f") == ("a/b@c+d/e@f", "d/e", "f", "e")
        parts = {"lora": {"path": "d/e", "revision": "f"}, "model": {"path": "a/b"}}
        assert entry(parts) == ("a/b+d/e@f", "d/e", "f", "e")

    def test_types(self, here, tmp_path):
        text = CONFIGURATIONS["linear"]
        assert read(tmp_path, text).dtype == "float32"
        assert read(tmp_path, text + "dtype: float16\n").dtype == "float16"
        both = text + "dtype: float32\nout_dtype: bfloat16\n"
        assert read(tmp_path, both).dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("knots", "expected"),
        [
            ((0, 1), (0, 1 / 3, 2 / 3, 1)),
            ((0, 3, 0), (0, 2, 2, 0)),
            ((0, 1, 2, 3, 4), (0, 4 / 3, 8 / 3, 4)),
        ],
    )
    def test_gradients(self, knots, expected):
        """Measured on mergekit 0.1.5 with four layers."""
        assert [Entry(None, knots).at(j / 3) for j in range(4)] == pytest.approx(expected)


class TestBuild:
    def build(self, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "evomerge", "build", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    def test_paths_are_relative_to_the_current_folder(self, workspace, tmp_path):
        config_path = tmp_path / "config.yaml"
        config_path.write_text(CONFIGURATIONS["linear"])
        done = self.build(workspace, config_path, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        state = load_file(tmp_path / "out" / "model.safetensors")
        first, second = (
            load_file(workspace / f"pool/expert{n}/model.safetensors") for n in range(2)
        )
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, (0.3 * first[name] + 0.8 * second[name]) / 1.1)
        done = self.build(workspace, tmp_path / "out/recipe.yaml", "--out", tmp_path / "again")
        assert done.returncode == 0, done.stderr
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert all(torch.equal(again[name], tensor) for name, tensor in state.items())

    def test_a_mistake_exits_with_2(self, workspace, tmp_path):
        config_path = tmp_path / "config.yaml"
        config_path.write_text(CONFIGURATIONS["ties"].replace("density", "densitty", 1))
        done = self.build(workspace, config_path, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert "models.0.parameters" in done.stderr
        assert "did you mean 'density'" in done.stderr
        assert not (tmp_path / "out").exists()


def _set(*steps, value):
    def change(data):
        for step in steps[:-1]:
            data = data[step]
        data[steps[-1]] = value

    return change


MISTAKES = {
    "a misspelt key": (
        "ties",
        lambda data: data.update(paramters=data.pop("parameters")),
        ("'paramters'", "did you mean 'parameters'"),
    ),
    "a misspelt key of a model": (
        "ties",
        lambda data: data["models"][1].update(paramaters=data["models"][1].pop("parameters")),
        ("models.1", "did you mean 'parameters'"),
    ),
    "a misspelt parameter": (
        "ties",
        _set("parameters", "normalise", value=True),
        ("parameters", "did you mean 'normalize'"),
    ),
    "a parameter of another method": (
        "linear",
        _set("models", 0, "parameters", "density", value=0.5),
        ("models.0.parameters", "'density'", "weight"),
    ),
    "a misspelt filter": (
        "slerp",
        _set("parameters", "t", value=[{"fitler": "mlp", "value": 0.5}]),
        ("parameters.t.0", "did you mean 'filter'"),
    ),
    "a density above 1": (
        "ties",
        _set("models", 0, "parameters", "density", value=1.7),
        ("models.0.parameters.density", "1.7", "0.0 to 1.0"),
    ),
    "a density below 0 in a gradient": (
        "ties",
        _set("models", 0, "parameters", "density", value=[0.5, -0.1]),
        ("models.0.parameters.density.1", "-0.1"),
    ),
    "a density that keeps nothing": (
        "ties",
        _set("models", 0, "parameters", "density", value=0.01),
        ("norm", "keeps none", "'expert0'"),
    ),
    "a number that YAML reads as text": (
        "slerp",
        _set("parameters", "t", value="1e-1"),
        ("parameters.t", "write 0.1"),
    ),
    "a flag that is a number": (
        "ties",
        _set("parameters", "normalize", value=1),
        ("parameters.normalize", "true or false"),
    ),
    "a weight that is a flag": (
        "ties",
        _set("models", 0, "parameters", "weight", value=True),
        ("models.0.parameters.weight", "a number"),
    ),
    "no weight": (
        "ties",
        lambda data: data["models"][1]["parameters"].pop("weight"),
        ("models.1.parameters", "'weight'", "ties"),
    ),
    "no weight for an unlisted base": (
        "linear",
        lambda data: data.update(base_model="pool/base"),
        ("base_model", "'weight'"),
    ),
    "no weight where no filter matches": (
        "linear",
        _set("models", 0, "parameters", "weight", value=[{"filter": "mlp", "value": 1}]),
        ("models.0", "'weight'", "embed_tokens"),
    ),
    "weights that sum to zero": (
        "linear",
        _set("models", 1, "parameters", "weight", value=-0.3),
        ("sum to zero",),
    ),
    "no t": ("slerp", lambda data: data.pop("parameters"), ("'t'", "slerp")),
    "a shared value for one model": (
        "ties",
        _set("models", 0, "parameters", "lambda", value=0.5),
        ("models.0.parameters.lambda", "whole merge"),
    ),
    "no base": ("ties", lambda data: data.pop("base_model"), ("ties", "`base_model`")),
    "a base that is not among a slice's sources": (
        "task_arithmetic, other layers",
        lambda data: data["slices"][0]["sources"].pop(0),
        ("slices.0", "'pool/base'"),
    ),
    "three models for slerp": (
        "slerp",
        lambda data: data["models"].append({"model": "pool/expert2"}),
        ("models", "exactly 2", "got 3"),
    ),
    "no expert": (
        "ties",
        lambda data: data.update(models=[{"model": "pool/base"}]),
        ("1 or more", "got 0"),
    ),
    "a model twice": (
        "linear",
        lambda data: data["models"].append(data["models"][0]),
        ("'pool/expert0'", "twice"),
    ),
    "a method that is none": (
        "ties",
        lambda data: data.update(merge_method="tise"),
        ("merge_method", "did you mean 'ties'"),
    ),
    "a method that is not supported": (
        "ties",
        lambda data: data.update(merge_method="arcee_fusion"),
        ("merge_method", "'arcee_fusion'", "not supported"),
    ),
    "modules beside models": (
        "ties",
        lambda data: data.update(modules={"default": {}}),
        ("either `models` or `modules`",),
    ),
    "another module": (
        "linear, in a module",
        lambda data: data["modules"].update(vision_tower={}),
        ("modules", "'vision_tower'", "valid: default"),
    ),
    "no module": (
        "linear, in a module",
        lambda data: data.update(modules={}),
        ("modules", "expected default"),
    ),
    "an empty module": (
        "linear, in a module",
        lambda data: data["modules"]["default"].pop("models"),
        ("modules.default: ", "neither"),
    ),
    "a misspelt key of a module": (
        "linear, in a module",
        lambda data: data["modules"]["default"].update(paramters={}),
        ("modules.default: ", "did you mean 'parameters'"),
    ),
    "a mistake in a module": (
        "ties, slices in a module",
        lambda data: data["modules"]["default"].update(parameters={"density": 1.7}),
        ("modules.default.parameters.density", "1.7"),
    ),
    "models and slices": (
        "ties",
        lambda data: data.update(slices=[{}]),
        ("either `models` or `slices`",),
    ),
    "neither models nor slices": (
        "ties",
        lambda data: data.pop("models"),
        ("either `models` or `slices`", "neither"),
    ),
    "a model's tokenizer": (
        "ties",
        lambda data: data.update(tokenizer_source="pool/expert0"),
        ("tokenizer_source", "'pool/expert0'", "valid: base, union"),
    ),
    "another tokenizer": (
        "ties",
        lambda data: data.update(tokenizer={"source": "pool/expert0"}),
        ("tokenizer.source", "'pool/expert0'"),
    ),
    "tokens": (
        "ties",
        lambda data: data.update(tokenizer={"source": "base", "tokens": {"a": {}}}),
        ("tokenizer.tokens",),
    ),
    "a chat template of mergekit's": (
        "ties",
        lambda data: data.update(chat_template="chatml"),
        ("chat_template", "'chatml'", "template itself"),
    ),
    "a misspelt chat template": (
        "ties",
        lambda data: data.update(chat_template="atuo"),
        ("chat_template", "'atuo'", "'auto'"),
    ),
    "a chat template that is a number": (
        "ties",
        lambda data: data.update(chat_template=1),
        ("chat_template", "got 1", "'auto'"),
    ),
    "a type": (
        "ties",
        lambda data: data.update(dtype="bfloat"),
        ("dtype", "did you mean 'bfloat16'"),
    ),
    "an adapter of another model": (
        "linear",
        _set("models", 1, "model", value="pool/base+pool/lora"),
        ("models.1.model", "'pool/base'", "'pool/expert0'"),
    ),
    "an adapter of the model with an adapter": (
        "linear",
        _set("models", 0, "model", value="pool/base+pool/lora+pool/lora"),
        ("models.0.model", "MODEL+LORA"),
    ),
    "an adapter that stands alone": (
        "linear",
        _set("models", 1, "model", value="pool/lora"),
        ("'pool/lora' is an adapter", "'pool/expert0+pool/lora'"),
    ),
    "an adapter that is a whole model": (
        "linear",
        _set("models", 1, "model", value="pool/expert0+pool/expert1"),
        ("'pool/expert1' is a whole model",),
    ),
    "task vectors from an adapter": (
        "ties",
        _set("base_model", value="pool/base+pool/lora"),
        ("models", "'pool/base+pool/lora'", "whole one"),
    ),
    "two revisions": (
        "linear",
        _set("models", 0, "model", value="a/b@c@d"),
        ("models.0.model", "@REVISION"),
    ),
    "a revision of a folder with an adapter": (
        "linear",
        _set("models", 1, "model", value="pool/expert0+pool/lora@main"),
        ("'pool/lora@main'", "no revision"),
    ),
    "a misspelt key of a model's name": (
        "linear",
        _set("models", 0, "model", value={"model": "pool/expert0", "lroa": "pool/lora"}),
        ("models.0.model", "did you mean 'lora'"),
    ),
    "a misspelt key of a path": (
        "linear",
        _set("models", 0, "model", value={"model": {"path": "a/b", "revison": "c"}}),
        ("models.0.model.model", "did you mean 'revision'"),
    ),
    "an architecture of one's own": (
        "linear",
        _set("models", 0, "model", value={"model": "a", "override_architecture": "b"}),
        ("models.0.model", "'override_architecture'"),
    ),
    "a revision of a folder": (
        "linear",
        _set("models", 0, "model", value="pool/expert0@main"),
        ("no revision",),
    ),
    "layers that are not there": (
        "passthrough, a stack",
        _set("slices", 1, "sources", 0, "layer_range", value=[2, 5]),
        ("slices.1.sources.0.layer_range", "0 to 3"),
    ),
    "no layers": (
        "passthrough, a stack",
        _set("slices", 1, "sources", 0, "layer_range", value=[2, 2]),
        ("slices.1.sources.0.layer_range", "FIRST"),
    ),
    "sources of other layers": (
        "slerp, by layers and components",
        _set("slices", 0, "sources", 0, "layer_range", value=[1, 4]),
        ("slices.0", "[0, 4], [1, 4]"),
    ),
    "a layer that is made twice": (
        "passthrough, a scaled copy of a layer",
        lambda data: data["slices"].append(
            {
                "sources": [
                    {
                        "model": "pool/expert0",
                        "layer_range": [3, 4],
                        "parameters": {"scale": 0.3},
                    }
                ]
            }
        ),
        ("slices.2", "layer 3", "differently"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(here, tmp_path, name):
    configuration, change, says = MISTAKES[name]
    message = refused(tmp_path, changed(configuration, change))
    for words in says:
        assert words in message


def test_a_missing_model(here, tmp_path):
    text = changed("linear", _set("models", 0, "model", value="./pool/expert9"))
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="expert9"):
        open_mergekit(path)


def test_what_a_method_does_not_use_is_said(here, tmp_path, caplog):
    read(
        tmp_path,
        changed("task_arithmetic", _set("models", 1, "parameters", "density", value=0.5)),
    )
    assert "models.1.parameters.density" in caplog.text
    assert "does not use it" in caplog.text
