"""Searches of models as people have them: SentencePiece alone, and tokenizers of unlike kinds."""

from __future__ import annotations

import pytest
import yaml

import evomerge
from evomerge.config import load_config
from evomerge.promote import promote
from evomerge.recipe import read_recipe
from evomerge.search.check import check
from fixtures import make_config, make_tasks
from tokenizers_of_kinds import MODEL_FILE, save_byte_level, save_pieces

SEARCH = {"budget": {"candidates": 3}, "finalists": 1}


@pytest.mark.parametrize("kind", ["tokenizer.model alone", "matched by text"])
def test_search_resume_and_promote(kind, tmp_path):
    is_matched = kind == "matched by text"
    (save_byte_level if is_matched else save_pieces)(tmp_path / "pool/base", 0)
    save_pieces(tmp_path / "pool/expert0", 1)
    save_pieces(tmp_path / "pool/expert1", 2)
    make_tasks(tmp_path / "tasks")
    changes = {"workers": {"kind": "inline"}, "search": SEARCH}
    if is_matched:
        changes["pool"] = {"vocabulary": {"tokens": "base", "match": "text"}}
    config_path = make_config(tmp_path, **changes)
    lines = check(load_config(config_path), tmp_path).lines
    assert is_matched == any("of the base's tokens matched by text" in line for line in lines)
    run_dir = tmp_path / "run"
    result = evomerge.run(config_path, run_dir)
    assert evomerge.resume(run_dir).best == result.best
    promotion = promote(run_dir, result.best)
    assert promotion.is_exact
    recipe = read_recipe(run_dir / "recipes" / f"{result.best}.yaml")
    assert (recipe.vocabulary is not None) == is_matched
    resolved = yaml.safe_load((run_dir / "config.yaml").read_text())["pool"]["vocabulary"]
    if is_matched:
        assert resolved == recipe.vocabulary.model_dump(mode="json")
        assert resolved["match"] == "text"
    name = "tokenizer.json" if is_matched else MODEL_FILE
    ours, theirs = promotion.model_dir / name, tmp_path / "pool/base" / name
    assert ours.read_bytes() == theirs.read_bytes()
