"""A search of models whose vocabularies differ, from the configuration to a promoted checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.promote import promote
from evomerge.recipe import read_recipe
from evomerge.search.check import check
from fixtures import make_config, make_tasks
from vocabularies import NUM_OWN, ids, save

EXPERTS = {"expert0": ("<b>", "<x>"), "expert1": ("<|y|>", "<b>", "<z>")}


@pytest.fixture
def config_path(tmp_path) -> Path:
    for seed, (name, added) in enumerate({"base": ("<b>",), **EXPERTS}.items()):
        save(tmp_path / "pool" / name, seed, added)
    make_tasks(tmp_path / "tasks")
    vocabulary = {"tokens": "union", "missing": "mean"}
    changes = {"pool": {"vocabulary": vocabulary}, "workers": {"kind": "inline"}}
    changes["search"] = {"budget": {"candidates": 3}, "finalists": 1}
    return make_config(tmp_path, **changes)


def test_search_resume_and_promote(config_path, tmp_path):
    lines = check(load_config(config_path), tmp_path).lines
    assert any("3 added by experts, in 16 rows; a missing row is by `mean`" in x for x in lines)
    run_dir = tmp_path / "run"
    result = evomerge.run(config_path, run_dir)
    resolved = yaml.safe_load((run_dir / "config.yaml").read_text())["pool"]["vocabulary"]
    recipe = read_recipe(run_dir / "recipes" / f"{result.best}.yaml")
    assert resolved == recipe.vocabulary.model_dump(mode="json")
    assert recipe.vocabulary.order == ("expert0", "expert1")
    assert recipe.vocabulary.missing == "mean"
    assert evomerge.resume(run_dir).best == result.best
    # Its scores are those that the workers gave the model in memory, text read alike.
    promotion = promote(run_dir, result.best)
    assert promotion.is_exact
    added = {"<x>": NUM_OWN + 1, "<|y|>": NUM_OWN + 2, "<z>": NUM_OWN + 3}
    assert {token: ids(promotion.model_dir)[token] for token in added} == added
    path = tmp_path / "pool/expert1/tokenizer.json"
    path.write_text(path.read_text().replace("<z>", "<w>"))
    with pytest.raises(InputError, match="a tokenizer.json has changed"):
        evomerge.resume(run_dir)
