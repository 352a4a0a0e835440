"""docs/recipes.md: each merge is built as its page says, with small models of 32 layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters import save_adapter
from docs_pages import blocks
from evomerge.models import chain
from evomerge.models.from_recipe import build_recipe
from fixtures import save_model

PAGE = Path(__file__).parents[2] / "docs/recipes.md"

MERGES = {shown.title: shown.text for shown in blocks(PAGE, "yaml")}

NUM_LAYERS = {"self_merge.yaml": 48, "depth.yaml": 48, "stacks.yaml": 40}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for seed, name in enumerate(("base", "math", "code", "chat")):
        save_model(folder / "models" / name, seed, num_hidden_layers=32)
    adapter = folder / "adapters/plain_answers"
    save_adapter(adapter, folder / "models/base", r=2, target_modules=["o_proj", "down_proj"])
    return folder


def test_there_are_fifteen():
    assert len(MERGES) == 15


@pytest.mark.parametrize("name", MERGES)
def test_it_is_built(place, tmp_path, monkeypatch, caplog, name):
    monkeypatch.chdir(place)
    monkeypatch.setattr(chain, "user_cache_path", lambda _: tmp_path / "cache")
    path = tmp_path / name
    path.write_text(MERGES[name])
    build_recipe(path, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert model.config.num_hidden_layers == NUM_LAYERS.get(name, 32)
    with torch.no_grad():
        assert model(torch.tensor([[1, 5, 3]])).logits.isfinite().all()
    assert not [record for record in caplog.records if "mergekit" in record.name]
