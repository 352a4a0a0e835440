"""Layer swapping: the specification's examples, as the outer expert's share of each layer."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge import Engine
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Recipe
from evomerge.space import SPACES
from evomerge.space.path_config import LayerSwapConfig
from fixtures import make_pool

LANGUAGE = "expert0"
MATH = "expert1"
SWAP = LayerSwapConfig(outer=LANGUAGE, inner=MATH)
EXAMPLES = [
    # Layers, then bottom, top and the widths of their transitions; the language share.
    (12, (3, 2, 1, 1), [1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0.5, 1, 1]),
    (32, (5, 2, 1, 1), [*[1] * 5, 0.5, *[0] * 23, 0.5, 1, 1]),
    (12, (3, 2, 0, 0), [1, 1, 1, *[0] * 7, 1, 1]),
]


def open_at(folder, num_layers: int) -> Pool:
    make_pool(folder, 2, num_hidden_layers=num_layers)
    experts = [str(folder / name) for name in (LANGUAGE, MATH)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


@pytest.fixture(scope="module")
def pools(tmp_path_factory) -> dict[int, Pool]:
    return {n: open_at(tmp_path_factory.mktemp(f"layers{n}"), n) for n in (12, 32)}


def language_share(recipe: Recipe, layer: int | None) -> float:
    """The language expert's normalized weight in what makes a layer's tensors."""
    components = ("attention", "mlp", "norm", "other", "embedding", "head")
    part, *others = [
        next(part for part in recipe.parts if part.matches(layer, component, ""))
        for component in components
    ]
    assert all(other is part for other in others)
    weights = part.coefficients()["weight"]
    return dict(zip(part.models, weights, strict=True)).get(LANGUAGE, 0.0) / sum(weights)


@pytest.mark.parametrize(("num_layers", "genome", "shares"), EXAMPLES)
def test_shares(pools, num_layers, genome, shares):
    space = SPACES.make(SWAP, pools[num_layers], None)
    recipe = space.to_recipe(genome)
    assert [language_share(recipe, layer) for layer in range(num_layers)] == shares
    # Embeddings, final norm and head belong to the outer layers.
    assert language_share(recipe, None) == 1.0
    assert space.to_genome(recipe) == genome


@pytest.mark.parametrize(("num_layers", "genome", "shares"), EXAMPLES)
def test_built(pools, num_layers, genome, shares):
    pool = pools[num_layers]
    recipe = SPACES.make(SWAP, pool, None).to_recipe(genome)
    built = dict(Engine(pool).tensors(recipe))
    assert built.keys() == pool.layout.places.keys()
    for name, place in pool.layout.places.items():
        share = 1.0 if place.layer is None else shares[place.layer]
        ours, theirs = pool[LANGUAGE].tensor(name), pool[MATH].tensor(name)
        # Halves of float32 numbers are exact, and so is their sum's rounding.
        assert torch.equal(built[name], share * ours + (1.0 - share) * theirs), name


def test_without_transitions_there_are_two_numbers(pools):
    narrow = SPACES.make(SWAP.model_copy(update={"transition": False}), pools[12], None)
    wide = SPACES.make(SWAP, pools[12], None)
    assert narrow.to_recipe((3, 2)) == wide.to_recipe((3, 2, 0, 0))
