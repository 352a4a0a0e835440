"""mergekit-evolve's configurations as ones of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from commands import run_here
from evomerge.begin.from_evolve import convert_search
from evomerge.config import load_config
from evomerge.errors import InputError
from fixtures import make_pool, make_tasks

EVOLVE = {
    "genome": {
        "models": ["pool/expert0", "pool/expert1"],
        "merge_method": "dare_ties",
        "base_model": "pool/base",
        "tokenizer_source": "base",
        "layer_granularity": 2,
        "normalize": False,
        "allow_negative_weights": True,
        "filters": ["self_attn", "mlp"],
    },
    "tasks": [
        {"name": "toy_choose", "weight": 1.0, "metric": "acc,none"},
        {"name": "toy_write", "weight": 0.5, "metric": "exact_match,flexible-extract"},
    ],
    "limit": 8,
    "num_fewshot": 1,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evolve")
    make_pool(folder / "pool", num_hidden_layers=4)
    make_tasks(folder / "tasks")
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


def converted(folder: Path, **changes):
    """What a configuration becomes, as data; fields of the genome are among the changes."""
    data = {**EVOLVE, "genome": dict(EVOLVE["genome"])}
    for name, value in changes.items():
        of_file = ("apply_chat_template", "fewshot_as_multiturn")
        section = data if name in data or name in of_file else data["genome"]
        section[name] = value
    path, out = folder / "evolve.yml", folder / "search.yaml"
    path.write_text(yaml.safe_dump(data))
    out.unlink(missing_ok=True)
    convert_search(path, out)
    # Every section of it is valid.
    load_config(out)
    return yaml.safe_load(out.read_text()), out.read_text()


def test_what_is_said_is_said_here(here, tmp_path):
    data, text = converted(tmp_path)
    assert Path(tmp_path, data["pool"]["base"]).resolve() == here / "pool/base"
    assert [Path(each).name for each in data["pool"]["experts"]] == ["expert0", "expert1"]
    assert data["score"]["objectives"] == [
        {"task": "toy_choose", "metric": "acc", "preference": 1.0},
        {
            "task": "toy_write",
            "metric": "exact_match",
            "filter": "flexible-extract",
            "preference": 0.5,
        },
    ]
    assert data["score"]["splits"] == {"search": 8, "seed": 0}
    assert data["score"]["num_fewshot"] == 1
    assert data["score"]["apply_chat_template"] is True
    space = data["space"]
    assert space["method"] == {
        "kind": "dare_ties",
        "normalize": False,
        "rescale": "l1",
        "vectors": "same",
    }
    assert (space["groups"], space["components"]) == (2, True)
    assert space["vary"]["weight"] == {"low": -1.0, "high": 1.0}
    assert "# layer_granularity 2: one set of numbers for 2 layers" in text


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "slerp"])
def test_every_method_of_its(here, tmp_path, method):
    data, _ = converted(tmp_path, merge_method=method, normalize=True)
    assert data["space"]["method"]["kind"] == method
    assert data["space"]["method"].get("normalize", True) is True
    names = {"slerp": {"t"}, "linear": {"weight"}, "task_arithmetic": {"weight"}}
    assert set(data["space"]["vary"]) == names.get(method, {"weight", "density"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layer_granularity": None, "filters": None}, {"groups": "whole"}),
        ({"smooth": True, "filters": None}, {"over_depth": {"weight": 2, "density": 2}}),
        ({"allow_negative_weights": False}, {"vary": {"weight": {"low": 0.0, "high": 1.0}}}),
    ],
)
def test_numbers_of_layers(here, tmp_path, changes, expected):
    data, _ = converted(tmp_path, **changes)
    for key, value in expected.items():
        found = data["space"][key]
        assert found == value or (key == "vary" and found["weight"] == value["weight"])


def test_filters_that_are_no_components(here, tmp_path):
    data, _ = converted(tmp_path, filters=["q_proj", "up_proj"])
    groups = data["space"]["groups"]
    assert [group["name"] for group in groups] == [
        *("0-q_proj", "0-up_proj", "1-q_proj", "1-up_proj", "0-rest", "1-rest", "outside")
    ]
    assert groups[2] == {"name": "1-q_proj", "layers": [2, 3], "names": ["q_proj"]}


def test_what_is_not_said_is_as_there(here, tmp_path):
    """Weights of these are normalized, and prompts are chats."""
    for method, normalized in (("ties", True), ("dare_ties", True), ("task_arithmetic", False)):
        data, _ = converted(tmp_path, merge_method=method, normalize=None)
        assert data["space"]["method"]["normalize"] is normalized
    data, _ = converted(tmp_path, apply_chat_template=False, fewshot_as_multiturn=True)
    assert data["score"]["apply_chat_template"] is False
    assert "fewshot_as_multiturn" not in data["score"]


def test_a_base_among_the_models_is_one_where_it_is_merged_as_any_other(here, tmp_path):
    models = ["pool/base", "pool/expert0", "pool/expert1"]
    data, _ = converted(tmp_path, models=models, merge_method="linear")
    assert len(data["pool"]["experts"]) == 3
    data, _ = converted(tmp_path, models=["./pool/base", *models[1:]], merge_method="ties")
    assert len(data["pool"]["experts"]) == 2


def test_models_of_a_hub_keep_their_revisions(here, tmp_path):
    models = ["some/math@v1", "other/math"]
    changes = {"models": models, "base_model": "some/base@v2", "smooth": True}
    data, text = converted(tmp_path, **changes)
    assert data["pool"]["base"] == {"source": "some/base", "revision": "v2"}
    assert data["pool"]["experts"][0]["revision"] == "v1"
    assert data["space"]["over_depth"]["weight"] == 4
    words = " ".join(text.replace("#", "").split())
    assert "number of layers divided by 2 in the place of 4" in words


def test_without_a_base_the_first_model_is_it(here, tmp_path):
    data, text = converted(tmp_path, merge_method="linear", base_model=None)
    assert data["pool"]["base"] == str(data["pool"]["experts"][0])
    assert "The first model gives configuration and tokenizer" in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer_granularity": 3}, "genome.layer_granularity: 3 does not divide"),
        ({"tokenizer_source": "pool/expert0"}, "genome.tokenizer_source: .*valid: base, union"),
        ({"merge_method": "tise"}, "genome.merge_method: .*did you mean 'ties'"),
        ({"tasks": [{"nmae": "a"}]}, "tasks.0.nmae: .*did you mean 'name'"),
        ({"tasks": [{"name": "a", "weight": -1}]}, "tasks.0.weight: got -1"),
        ({"limit": 0.5}, "limit: got 0.5, expected a whole number"),
        ({"models": ["pool/expert9"]}, "expert9"),
        ({"models": ["pool/expert0+pool/lora"]}, "models.0: .*build it first"),
        ({"models": ["pool/base"]}, "what it means is no search here: pool.experts"),
        ({"num_fewshot": -1}, "what it means is no search here: score.num_fewshot"),
        ({"filters": 3}, "genome.filters: got 3, expected a list"),
        ({"filters": "q_proj"}, "genome.filters: got 'q_proj', expected a list"),
        (
            {"filters": ["q_proj"], "base_model": "some/base"},
            "genome.filters: .*the base is not on this machine",
        ),
    ],
)
def test_what_cannot_be_said(here, tmp_path, changes, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        converted(tmp_path, **changes)
    assert not (tmp_path / "search.yaml").exists()


def test_the_commands_know_the_file(place):
    path = place / "evolve.yml"
    path.write_text(yaml.safe_dump({**EVOLVE, "tasks": [{"name": "toy_choose"}]}))
    refused = run_here("build", path, "--out", "model", cwd=place)
    assert refused.returncode == 2
    assert "evomerge convert" in refused.stderr
    made = run_here("convert", path, "--out", "search.yaml", cwd=place)
    assert made.returncode == 0, made.stderr
    assert "search.yaml: written" in made.stdout
    checked = run_here(
        *("check", "search.yaml", "--set", "score.include_path=[tasks]"),
        *("--set", "score.num_fewshot=0", "--set", "score.apply_chat_template=false"),
        cwd=place,
    )
    assert checked.returncode == 0, checked.stderr
