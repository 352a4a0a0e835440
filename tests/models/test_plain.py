"""Paths whose layers are stored as often as they are run: checkpoints that need no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from commands import run_here
from evomerge.errors import InputError
from evomerge.models.candidates import Candidates
from evomerge.models.from_recipe import build_recipe
from evomerge.models.resident import ResidentModel
from evomerge.models.weights import recipe_weights_sha256, stored_weights_sha256, weights_sha256
from evomerge.pool import Pool
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.space import recipes
from fixtures import make_pool
from pools import open_at

CPU = torch.device("cpu")

IDS = torch.tensor([[1, 5, 3, 7, 2, 4, 6]])


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("plain") / "pool", num_hidden_layers=3))


def path_of(*hops: tuple[str, int, float], stored: str | None = None) -> LayerPath:
    return LayerPath(
        outer="expert0",
        hops=tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in hops),
        stored=stored,
    )


REPEATED = ("expert0", 0, 1.0), ("merged", 1, 1.0), ("expert0", 0, 1.0), ("merged", 1, 1.0)


def recipe_with(pool: Pool, path: LayerPath) -> Recipe:
    return recipes.uniform(pool).model_copy(update={"path": path})


def write(folder: Path, recipe: Recipe) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    return path


def test_it_is_the_model_that_was_scored(pool, tmp_path):
    """Bit for bit, by the family's own class, with a layer for each hop."""
    recipe = recipe_with(pool, path_of(*REPEATED, stored="plain"))
    build_recipe(write(tmp_path, recipe), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.py"))
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 4 and "auto_map" not in config
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM"
    held = ResidentModel(pool, CPU)
    candidates = Candidates(pool, CPU, held)
    candidates.load(recipe)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, held.model(IDS).logits)
    stored = stored_weights_sha256(tmp_path / "out")
    assert stored == recipe_weights_sha256(pool, recipe, CPU)
    assert stored == weights_sha256(candidates.tensors(recipe))


def test_the_command_asks_for_it(pool, tmp_path):
    recipe = recipe_with(pool, path_of(*REPEATED))
    path = write(tmp_path, recipe)
    done = run_here("build", path, "--out", "compact", cwd=tmp_path)
    plain = run_here("build", path, "--plain", "--out", "plain", cwd=tmp_path)
    assert done.returncode == plain.returncode == 0, done.stderr + plain.stderr
    assert (tmp_path / "compact/modeling_path.py").is_file()
    assert not (tmp_path / "plain/modeling_path.py").exists()


def test_what_has_a_scale_in_no_weight_is_refused(pool, tmp_path):
    first, *rest = REPEATED
    scaled = write(tmp_path, recipe_with(pool, path_of(first, ("merged", 1, 0.5), *rest)))
    with pytest.raises(InputError, match="hop 1 scales its input by 0.5"):
        build_recipe(scaled, tmp_path / "out", plain=True)
    assert not (tmp_path / "out").exists()
    # The first one's is the embedding's.
    folded = write(tmp_path, recipe_with(pool, path_of(("expert0", 0, 0.5), *rest)))
    build_recipe(folded, tmp_path / "out", plain=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    held = ResidentModel(pool, CPU)
    candidates = Candidates(pool, CPU, held)
    candidates.load(recipe_with(pool, path_of(("expert0", 0, 0.5), *rest)))
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, held.model(IDS).logits)


def test_a_recipe_of_the_default_form_has_the_hash_that_it_had(pool):
    recipe = recipe_with(pool, path_of(*REPEATED))
    data = json.loads(recipe.to_json())
    assert data["path"].pop("stored") is None
    assert Recipe.model_validate(data).sha256 == recipe.sha256
    plain = recipe_with(pool, path_of(*REPEATED, stored="plain"))
    assert plain.sha256 != recipe.sha256
