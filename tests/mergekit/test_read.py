"""mergekit's configurations as recipes: what they come to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import run_here
from evomerge.mergekit import is_mergekit
from evomerge.mergekit.models import model_entries, read_model
from evomerge.mergekit.values import Entry, Where
from evomerge.methods.linear import LinearConfig
from evomerge.methods.ties import TiesConfig
from evomerge.models.chain import open_mergekit
from evomerge.recipe import Hop, LayerPath, Recipe, Selector, read_recipe
from mergekit_configurations import CONFIGURATIONS


def read(folder: Path, text: str) -> Recipe:
    path = folder / "config.yaml"
    path.write_text(text)
    return open_mergekit(path)[1]


class TestRecipes:
    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_is_an_ordinary_recipe(self, opened, tmp_path, name):
        read = opened(name)
        assert read.recipe.dtype == "float32"
        path = tmp_path / "recipe.yaml"
        path.write_text(read.recipe.to_yaml())
        assert read_recipe(path) == read.recipe
        assert is_mergekit(read.path) and not is_mergekit(path)

    @pytest.mark.parametrize("name", ["linear", "ties, slices in a module", "passthrough, a stack"])
    def test_its_type_is_the_recipes(self, here, tmp_path, name):
        recipe = read(tmp_path, CONFIGURATIONS[name] + "dtype: bfloat16\n")
        assert recipe.dtype == "bfloat16"

    def test_every_option_is_said(self, here, tmp_path):
        recipe = read(tmp_path, CONFIGURATIONS["ties, rescaled, not normalized"])
        (part,) = recipe.parts
        assert part.method == TiesConfig(
            normalize=False,
            election="mass",
            rescale="l1",
            none_kept="keep",
            vectors="same",
            equal="first",
        )
        assert part.models == ("expert0", "expert1")
        assert part.parameters == {
            "weight": {"expert0": 0.5, "expert1": -0.7},
            "density": {"expert0": 0.4, "expert1": 0.6},
            "scale": 1.0,
        }

    def test_a_model_of_which_nothing_is_kept_is_left_out(self, here, tmp_path):
        recipe = read(tmp_path, CONFIGURATIONS["ties, models that are dropped in some layers"])
        found = {
            part.select[0].layers if part.select else "rest": {
                name: part.coefficients()[name] for name in ("weight", "density", "scale")
            }
            for part in recipe.parts
        }
        assert found == {
            (1,): {"weight": (0.4, 0.0), "density": (0.5, 1.0), "scale": (1.0,)},
            (2,): {"weight": (0.0, 0.6), "density": (1.0, 0.5), "scale": (1.0,)},
            (3,): {"weight": (0.4, 0.6), "density": (0.5, 0.5), "scale": (1.0,)},
            "rest": {"weight": (0.4, 0.6), "density": (1.0, 1.0), "scale": (0.0,)},
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
            outer="base",
            hops=(Hop(model="base", layer=3), Hop(model="base", layer=0)),
            stored="plain",
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
            _, found = model_entries(["base", model]).values()
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
    def test_paths_are_relative_to_the_current_folder(self, workspace, tmp_path):
        config_path = tmp_path / "config.yaml"
        config_path.write_text(CONFIGURATIONS["linear"])
        done = run_here("build", config_path, "--out", tmp_path / "out", cwd=workspace)
        assert done.returncode == 0, done.stderr
        state = load_file(tmp_path / "out" / "model.safetensors")
        first, second = (
            load_file(workspace / f"pool/expert{n}/model.safetensors") for n in range(2)
        )
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, (0.3 * first[name] + 0.8 * second[name]) / 1.1)
        done = run_here(
            "build", tmp_path / "out/recipe.yaml", "--out", tmp_path / "again", cwd=workspace
        )
        assert done.returncode == 0, done.stderr
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert all(torch.equal(again[name], tensor) for name, tensor in state.items())

    def test_a_mistake_exits_with_2(self, workspace, tmp_path):
        config_path = tmp_path / "config.yaml"
        config_path.write_text(CONFIGURATIONS["ties"].replace("density", "densitty", 1))
        done = run_here("build", config_path, "--out", tmp_path / "out", cwd=workspace)
        assert done.returncode == 2
        assert "models.0.parameters" in done.stderr
        assert "did you mean 'density'" in done.stderr
        assert not (tmp_path / "out").exists()
