"""What mergekit passes over, and so do we: each configuration means the same with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evomerge.errors import InputError
from evomerge.models.chain import open_mergekit
from evomerge.recipe import Recipe
from mergekit_configurations import CONFIGURATIONS


def read(folder: Path, text: str) -> Recipe:
    path = folder / "config.yaml"
    path.write_text(text)
    return open_mergekit(path)[1]


def both(folder: Path, name: str, change) -> tuple[Recipe, Recipe]:
    """A configuration's recipe as it is and as it is changed."""
    plain = read(folder, CONFIGURATIONS[name])
    data = yaml.safe_load(CONFIGURATIONS[name])
    change(data)
    return plain, read(folder, yaml.safe_dump(data, sort_keys=False))


def _of_all(**parameters):
    return lambda data: data.setdefault("parameters", {}).update(parameters)


def _of_model(number: int, **parameters):
    return lambda data: data["models"][number].setdefault("parameters", {}).update(parameters)


SILENT = {
    "a name": ("linear", lambda data: data.update(name="mine")),
    "a mask in every method": ("linear", _of_all(int8_mask=1.0)),
    "a mask in slerp": ("slerp", _of_all(int8_mask=True)),
    "a mask of a model": ("ties", _of_model(0, int8_mask=0)),
    "a switch that is 1": ("ties", _of_all(normalize=1)),
    "a number in quotes": ("ties", _of_model(0, weight="0.5")),
    "a number without a point": ("ties", _of_model(0, weight="5e-1")),
    "a revision that says nothing": (
        "linear",
        lambda data: data["models"][0].update(revision=None),
    ),
}

SAID = {
    "a weight of model_stock": (
        "model_stock",
        _of_model(1, weight=0.7),
        "models.1.parameters.weight: this method has none, and mergekit ignores it",
    ),
    "normalize of model_stock": (
        "model_stock",
        _of_all(normalize=True),
        "parameters.normalize: this method has none, and mergekit ignores it",
    ),
    "a density of linear": (
        "linear",
        _of_model(0, density=0.5),
        "models.0.parameters.density: this method has none, and mergekit ignores it",
    ),
    "a density of task_arithmetic": (
        "task_arithmetic",
        _of_model(1, density=0.5),
        "models.1.parameters.density: this method does not use it, in mergekit neither",
    ),
    "parameters of the base": (
        "ties",
        lambda data: data["models"].append(
            {"model": data["base_model"], "parameters": {"weight": 1, "density": 0.1}}
        ),
        "models.3.parameters: mergekit ignores those of the base",
    ),
    "a folder's revision": (
        "linear",
        lambda data: data["models"][0].update(model="pool/expert0@main"),
        "'pool/expert0@main': a folder has no revision",
    ),
    "a folder's revision by itself": (
        "linear",
        lambda data: data["models"][0].update(revision="main"),
        "'pool/expert0@main': a folder has no revision",
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said(here, tmp_path, caplog, name):
    plain, changed = both(tmp_path, *SILENT[name])
    assert changed == plain
    assert not caplog.records


@pytest.mark.parametrize("name", SAID)
def test_a_warning_says_it(here, tmp_path, caplog, name):
    configuration, change, says = SAID[name]
    plain, changed = both(tmp_path, configuration, change)
    assert changed == plain
    assert says in caplog.text


def test_keys_that_hold_anchors(here, tmp_path):
    text = """
quiet: &quiet 0.0
some: {loud: &loud 1.0}
more: [&half 0.5]
slices:
- sources: [{model: pool/expert0, layer_range: [0, 3]}]
- sources:
  - model: pool/expert1
    layer_range: [2, 4]
    parameters:
      scale: [{filter: o_proj, value: *quiet}, {value: *loud}]
merge_method: passthrough
"""
    recipe = read(tmp_path, text)
    assert recipe.path is not None and len(recipe.path.hops) == 5
    with pytest.raises(InputError, match="no key 'quiet'"):
        read(tmp_path, text.replace("&quiet 0.0", "0.0").replace("*quiet", "0.0"))
    # One that looks like another key, too, where it is used.
    assert read(tmp_path, text.replace("quiet:", "params:")) == recipe


def test_a_misspelt_key_is_one_with_an_anchor_too(here, tmp_path):
    text = CONFIGURATIONS["ties"].replace("\nparameters:", "\nparamters: &it")
    with pytest.raises(InputError, match="did you mean 'parameters'"):
        read(tmp_path, text)


def test_a_seed_is_that_of_the_masks(here, tmp_path):
    plain, changed = both(tmp_path, "ties", lambda data: data.update(random_seed=7))
    assert plain.mask_seed == 0
    assert changed == plain.model_copy(update={"mask_seed": 7})
    large = 2**53 + 1
    _, changed = both(tmp_path, "ties", lambda data: data.update(random_seed=large))
    assert changed.mask_seed == large


def test_a_base_alone_is_itself(here, tmp_path, caplog):
    text = "merge_method: ties\nbase_model: pool/base\nmodels: [{model: pool/base}]\n"
    recipe = read(tmp_path, text)
    assert recipe.is_member and recipe.parts[0].models == ("base",)
    assert "whose task vector is zero" in caplog.text
