"""Recipes and mergekit's configurations that a search starts from, as models of its pool."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import vocabularies
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.mergekit import start
from evomerge.models.export import recipe_tensors
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Recipe
from evomerge.search.setup import set_up
from evomerge.space import ParameterSpace, ParameterSpaceConfig, recipes
from fixtures import make_config, make_pool, make_tasks, save_model
from mergekit_configurations import CONFIGURATIONS
from mergekit_slices import STACKED

NAMES = {"pool/expert0": "math", "pool/expert1": "code", "pool/expert2": "third"}


@pytest.fixture(scope="module")
def there(workspace, tmp_path_factory) -> Path:
    """The workspace's models and one more, elsewhere."""
    folder = shutil.copytree(workspace, tmp_path_factory.mktemp("start"), dirs_exist_ok=True)
    save_model(folder / "pool/other", 9, num_hidden_layers=4)
    return folder


@pytest.fixture(scope="module")
def pool(there) -> Pool:
    return open_named(there, NAMES)


@pytest.fixture(scope="module")
def whole_pool(there) -> Pool:
    return open_named(there, NAMES | {"pool/lora": "adapter"})


def open_named(there: Path, names: dict[str, str]) -> Pool:
    experts = [{"source": source, "name": name} for source, name in names.items()]
    return open_pool(PoolConfig(base="pool/base", experts=experts), there)


def read_start(path: Path, pool: Pool, **options) -> Recipe:
    config = ParameterSpaceConfig(**(options or {"method": {"kind": "linear"}}))
    space = ParameterSpace(config, pool)
    return start.read_start(path, pool, lambda recipe: space.to_genome(recipe) is not None)


def write(there: Path, text: str, name: str = "merge.yaml") -> Path:
    path = there / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name not in STACKED])
def test_the_same_weights_by_the_pools_names(there, whole_pool, opened, name):
    recipe = read_start(write(there, CONFIGURATIONS[name]), whole_pool)
    assert recipe.members == whole_pool.members
    whole_pool.check_recipe(recipe)
    theirs = opened(name).tensors
    ours = dict(recipe_tensors(whole_pool, recipe))
    assert ours.keys() == theirs.keys()
    for tensor, numbers in ours.items():
        assert torch.equal(numbers, theirs[tensor]), tensor


@pytest.mark.parametrize("name", STACKED)
def test_stacks_are_no_models_of_the_pool(there, whole_pool, name):
    with pytest.raises(InputError, match=r"slices\.[01]: .*: a recipe "):
        read_start(write(there, CONFIGURATIONS[name]), whole_pool)


@pytest.mark.parametrize(
    ("options", "genome"),
    [
        ({"method": {"kind": "task_arithmetic"}}, (0.25, 0.5, 1.0)),
        (
            {"method": {"kind": "task_arithmetic"}, "vary": {"weight": {}, "scale": {}}},
            (0.25, 0.5, 1.0, 1.0),
        ),
        ({"methods": [{"kind": "linear"}, {"kind": "task_arithmetic"}]}, (1.0, 0.25, 0.5, 1.0)),
        ({"method": {"kind": "task_arithmetic"}, "fix": {"scale": 0.5}}, None),
        ({"method": {"kind": "linear"}}, None),
    ],
)
def test_a_point_of_the_space(there, pool, options, genome):
    """Whether the space says a parameter that has its default, or does not."""
    text = """
merge_method: task_arithmetic
base_model: pool/base
models:
- {model: pool/expert0, parameters: {weight: 0.25}}
- {model: pool/expert1, parameters: {weight: 0.5}}
- {model: pool/expert2, parameters: {weight: 1.0}}
"""
    recipe = read_start(write(there, text), pool, **options)
    space = ParameterSpace(ParameterSpaceConfig(**options), pool)
    assert space.to_genome(recipe) == genome
    assert recipe.parts[0].coefficients()["scale"] == (1.0,)


@pytest.mark.parametrize("kind", ["absolute", "copy", "link"])
def test_a_model_is_known_by_its_place_or_its_files(there, pool, tmp_path, kind):
    model = there / "pool/expert1"
    if kind == "copy":
        model = shutil.copytree(model, tmp_path / "elsewhere")
    if kind == "link":
        model = tmp_path / "link"
        model.symlink_to(there / "pool/expert1")
    source = "./link" if kind == "link" else model
    text = f"merge_method: passthrough\nmodels: [{{model: {source}}}]\n"
    recipe = read_start(write(tmp_path, text), pool)
    assert recipe.parts[0].models == ("code",)


def test_a_model_of_the_hub_is_known_by_its_id(there, pool):
    experts = tuple(pool.experts)
    hub = type(experts[0])("hub", experts[0].model_dir, "some/model@1234", experts[0].tensors)
    hub.__dict__["sha256"] = experts[0].sha256
    ours = Pool(pool.base, (hub,), pool.layout, pool.dtype)
    for source in ("some/model", "some/model@1234"):
        text = f"merge_method: passthrough\nmodels: [{{model: {source}}}]\n"
        assert read_start(write(there, text), ours).parts[0].models == ("hub",)
    text = "merge_method: passthrough\nmodels: [{model: some/model@main}]\n"
    with pytest.raises(InputError, match="'some/model' is not in the pool"):
        read_start(write(there, text), ours)


def test_a_folder_comes_before_a_hub_id(there, pool, tmp_path):
    hub = type(pool.base)("hub", pool.experts[0].model_dir, "some/model@1234", {})
    at = type(pool.base)("at", there / "pool/expert2", f"{tmp_path / 'some/model'}@2", {})
    ours = Pool(pool.base, (at, hub, pool.experts[1]), pool.layout, pool.dtype)
    for checkpoint in (at, hub):
        checkpoint.__dict__["sha256"] = "0" * 64
    shutil.copytree(there / "pool/expert1", tmp_path / "some/model")
    text = "merge_method: passthrough\nmodels: [{model: some/model}]\n"
    assert read_start(write(tmp_path, text), ours).parts[0].models == ("code",)


def test_the_files_base_has_the_chat_template(there, pool, tmp_path, monkeypatch):
    for name in ("base", "expert0"):
        shutil.copytree(there / "pool" / name, tmp_path / "pool" / name)
    (tmp_path / "pool/expert0/chat_template.jinja").write_text("{% if messages %}A{% endif %}")
    ours = open_pool(PoolConfig(base="pool/base", experts=["pool/expert0"]), tmp_path)
    text = "merge_method: passthrough\nmodels: [{model: pool/%s}]\n"
    recipe = read_start(write(tmp_path, text % "expert0"), ours)
    assert recipe.chat_template == "{% if messages %}A{% endif %}"
    assert read_start(write(tmp_path, text % "base"), ours).chat_template is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{merge_method: passthrough, models: [{model: pool/nothing}]}",
            ("'pool/nothing' is not in the pool", "is no folder", "its models are base, math"),
        ),
        (
            "{merge_method: passthrough, models: [{model: pool/other}]}",
            ("'pool/other' is not in the pool", "has other files"),
        ),
        (
            "{merge_method: task_arithmetic, base_model: pool/expert0, "
            "models: [{model: pool/expert1, parameters: {weight: 1}}]}",
            ("task vectors of task_arithmetic", "'pool/expert0'", "'math'"),
        ),
        (
            "{merge_method: linear, models: [{model: pool/expert0, parameters: {weight: 1}}, "
            "{model: ./pool/expert0, parameters: {weight: 1}}]}",
            ("'pool/expert0' and './pool/expert0' are one model", "'math'"),
        ),
        ("{merge_method: lineer, models: [{model: pool/expert0}]}", ("merge_method", "'linear'")),
        ("{parts: [], members: {}}", ("members",)),
    ],
)
def test_refused(there, pool, text, says):
    path = write(there, text)
    with pytest.raises(InputError) as error:
        read_start(path, pool)
    for words in (str(path), *says):
        assert words in str(error.value)


def test_our_own_recipes(there, pool):
    recipe = recipes.uniform(pool)
    assert read_start(write(there, recipe.to_yaml()), pool) == recipe
    fewer = Pool(pool.base, pool.experts[:1], pool.layout, pool.dtype)
    with pytest.raises(InputError, match=r"merge.yaml: recipe member 'code' is not in the pool"):
        read_start(there / "merge.yaml", fewer)


def test_a_run_finds_it_again(tmp_path):
    """The resolved configuration stands in another folder and names the same file."""
    make_pool(tmp_path / "pool")
    make_tasks(tmp_path / "tasks")
    write(tmp_path, "{merge_method: passthrough, models: [{model: pool/expert0}]}")
    config = make_config(
        tmp_path, search={"budget": {"candidates": 3}, "start_from": ["merge.yaml"]}
    )
    setup = set_up(load_config(config), tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    setup.config.write(run_dir / "config.yaml")
    again = set_up(load_config(run_dir / "config.yaml"), run_dir)
    assert again.starts.recipes == setup.starts.recipes
    assert again.starts.recipes[0].parts[0].models == ("expert0",)


@pytest.fixture
def aligned(tmp_path) -> Pool:
    for seed, (name, added) in enumerate({"base": ("<a>",), "more": ("<a>", "<b>")}.items()):
        vocabularies.save(tmp_path / name, seed, added, vocabularies.NUM_OWN + len(added))
    return vocabularies.open_with(tmp_path, "more", tokens="union", dtype="float32")


LINEAR = """
merge_method: linear
base_model: base
models:
- {model: base, parameters: {weight: 0.5}}
- {model: more, parameters: {weight: 0.5}}
"""


@pytest.mark.parametrize("says", ["", "tokenizer_source: union\n"])
def test_the_pools_vocabulary_is_the_recipes(tmp_path, aligned, says):
    recipe = read_start(write(tmp_path, LINEAR + says), aligned)
    aligned.check_recipe(recipe)
    embedding = dict(recipe_tensors(aligned, recipe))[vocabularies.EMBEDDING]
    base, more = (model.tensor(vocabularies.EMBEDDING) for model in aligned)
    assert torch.allclose(embedding, (base + more) / 2)


def test_another_vocabulary_than_the_pools_is_refused(tmp_path, aligned):
    path = write(tmp_path, LINEAR + "tokenizer_source: base\n")
    with pytest.raises(InputError, match="missing: base, the pool's has tokens: union"):
        read_start(path, aligned)
