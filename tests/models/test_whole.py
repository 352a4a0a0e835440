"""No export lacks a tensor that the base's files have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.models.whole import check_whole
from evomerge.pool import Pool, open_members
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import MEMBERS, family_config, make_random_pool, reopen_pool

FILE = "model.safetensors"
LOST = "model.layers.2.mlp.up_proj.weight"


@pytest.fixture
def pool(tmp_path) -> Pool:
    return make_random_pool(tmp_path / "pool", family_config("Llama"))


def change(pool: Pool, *models: str, **tensors: torch.Tensor) -> None:
    for model in models:
        path = pool[model].model_dir / FILE
        state = load_file(path) | tensors
        save_file(state, path, metadata={"format": "pt"})


def path_of(pool: Pool, *layers: int) -> Recipe:
    hops = [Hop(model="base", layer=layer) for layer in layers]
    return Recipe(members=pool.members, path=LayerPath(outer="base", hops=hops))


def assert_refused(pool: Pool, recipe: Recipe, folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"would lack .*'base'.*{name} \(1 in all\)"):
        export_checkpoint(pool, recipe, folder / "exports" / "out", "card")
    assert not list((folder / "exports").iterdir())


def without(pool: Pool, name: str) -> None:
    """What a pool would be that had lost a tensor when it was opened."""
    places = {n: place for n, place in pool.layout.places.items() if n != name}
    pool.layout = replace(pool.layout, places=places)


def test_a_tensor_that_was_lost_stops_the_export(pool, tmp_path):
    recipe = recipes.uniform(pool)
    without(pool, LOST)
    assert_refused(pool, recipe, tmp_path, LOST)


def test_a_tensor_that_was_never_seen_stops_the_export(pool, tmp_path):
    recipe = recipes.uniform(pool)
    change(pool, "base", stranger=torch.ones(2))
    assert_refused(pool, recipe, tmp_path, "stranger")


def test_a_path_may_lack_layers_and_nothing_else(pool, tmp_path):
    for number, layers in enumerate([(0, 1, 3), (0, 1, 1, 3), (2, 0)]):
        export_checkpoint(pool, path_of(pool, *layers), tmp_path / f"out{number}", "card")
    recipe = path_of(pool, 0, 1, 2)
    written = frozenset(load_file(tmp_path / "out0" / FILE))
    check_whole(pool, recipe, written)
    for name in ("model.norm.weight", LOST):
        with pytest.raises(InputError, match=name):
            check_whole(pool, recipe, written - {name})
    check_whole(pool, path_of(pool, 0, 1), written - {LOST})


def test_a_path_through_a_layer_that_lost_a_tensor_is_refused(pool, tmp_path):
    recipe = path_of(pool, 0, 2)
    pool.base.tensors.pop(LOST)
    without(pool, LOST)
    assert_refused(pool, recipe, tmp_path, LOST)


def test_what_models_compute_may_be_missing(pool, tmp_path):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    change(pool, *MEMBERS, **buffer)
    again = reopen_pool(tmp_path / "pool")
    export_checkpoint(again, recipes.uniform(again), tmp_path / "out", "card")
    assert not buffer.keys() & load_file(tmp_path / "out" / FILE).keys()


class TestTiedHead:
    @pytest.fixture
    def pool(self, tmp_path) -> Pool:
        config = family_config("Llama", tie_word_embeddings=True)
        return make_random_pool(tmp_path / "pool", config)

    def head(self, pool: Pool, more: float) -> dict[str, torch.Tensor]:
        return {"lm_head.weight": pool.base.tensor("model.embed_tokens.weight") + more}

    def test_a_copy_of_the_embedding_may_be_missing(self, pool, tmp_path):
        change(pool, "base", **self.head(pool, 0.0))
        again = reopen_pool(tmp_path / "pool")
        export_checkpoint(again, recipes.uniform(again), tmp_path / "out", "card")

    def test_one_of_its_own_may_not(self, pool, tmp_path):
        change(pool, "base", **self.head(pool, 1.0))
        with pytest.raises(InputError, match=r"'base'.*lm_head.*tie_word_embeddings: false"):
            reopen_pool(tmp_path / "pool")
        # A recipe's members are not compared once more, and its export is refused all the same.
        recipe = recipes.member(pool, "expert0")
        assert_refused(open_members(recipe), recipe, tmp_path, "lm_head.weight")


def test_a_shards_tensors_count_that_the_index_does_not_list(pool, tmp_path):
    """transformers loads them too."""
    base_dir = pool.base.model_dir
    state = load_file(base_dir / FILE)
    (base_dir / FILE).unlink()
    save_file(state | {"stranger": torch.ones(2)}, base_dir / "a.safetensors")
    index = {"weight_map": dict.fromkeys(state, "a.safetensors")}
    (base_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"'base' has tensors .*stranger"):
        reopen_pool(tmp_path / "pool")
    listed = dict(index["weight_map"])
    listed.pop(LOST)
    save_file(state, base_dir / "a.safetensors", metadata={"format": "pt"})
    (base_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    assert torch.equal(reopen_pool(tmp_path / "pool").base.tensor(LOST), state[LOST])
