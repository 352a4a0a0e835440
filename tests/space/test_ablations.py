"""What is left of a recipe without one of its parts, and how simple recipes are."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge import Engine
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.models.weights import recipe_weights_sha256
from evomerge.pool import Pool
from evomerge.recipe import Hop, LayerPath, Part, Recipe, Selector
from evomerge.space import recipes
from evomerge.space.ablations import ablations, complexity, models_in
from families import family_config, make_random_pool

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return make_random_pool(tmp_path_factory.mktemp("pool"), family_config("Llama"))


def part(weights: dict[str, float], *layers, scale: float = 1.0) -> Part:
    return Part(
        select=(Selector(layers=layers),) if layers else (),
        method=TaskArithmeticConfig(),
        models=tuple(weights),
        parameters={"weight": weights, "scale": scale},
    )


def merge(pool: Pool, *parts: Part, path: LayerPath | None = None) -> Recipe:
    return Recipe(members=pool.members, dtype=pool.dtype, parts=parts, path=path)


def by_what(pool: Pool, recipe: Recipe) -> dict[str, Recipe]:
    return {each.what: each.recipe for each in ablations(pool, recipe)}


def tensors(pool: Pool, recipe: Recipe) -> dict[str, torch.Tensor]:
    return dict(Engine(pool).tensors(recipe))


def test_an_expert_is_taken_away_and_the_others_keep_their_numbers(pool):
    found = by_what(pool, merge(pool, part({"expert0": 0.4, "expert1": 0.7})))
    expected = merge(pool, part({"expert1": 0.7}))
    ours = tensors(pool, found["expert0"])
    for name, tensor in tensors(pool, expected).items():
        assert torch.equal(ours[name], tensor)


def test_layers_that_are_taken_away_are_the_bases(pool):
    recipe = merge(pool, part({"expert0": 0.4, "expert1": 0.7}))
    found, whole = by_what(pool, recipe), tensors(pool, recipe)
    words = [what for what in found if what.startswith("layer")]
    num_layers = pool.layout.num_layers
    assert len(words) == min(4, num_layers) and "embeddings, final norm and head" in found
    for what in [*words, "embeddings, final norm and head"]:
        numbers = [int(word) for word in what.split() if word.isdecimal()]
        layers = list(range(numbers[0], numbers[-1] + 1)) if numbers else [None]
        ours = tensors(pool, found[what])
        for name, place in pool.layout.places.items():
            is_gone = place.layer in layers
            expected = pool.base.tensor(name) if is_gone else whole[name]
            assert torch.equal(ours[name].float(), expected.float()), (what, name)


def test_the_groups_of_a_recipe_are_taken_away_one_by_one(pool):
    recipe = merge(
        pool, part({"expert0": 0.4}, 0, 1), part({"expert0": 0.7}, 2, 3), part({"expert0": 0.1})
    )
    found = by_what(pool, recipe)
    assert {"layers 0 to 1", "layers 2 to 3", "all else", "between layers"} <= set(found)
    one = found["between layers"].parts
    # By how much of the model each part makes.
    sizes = [0, 0, 0]
    for name, place in pool.layout.places.items():
        number = 2 if place.layer is None else place.layer // 2
        sizes[number] += pool.base.tensor(name).numel()
    mean = (0.4 * sizes[0] + 0.7 * sizes[1] + 0.1 * sizes[2]) / sum(sizes)
    assert len(one) == 1
    assert one[0].parameters["weight"] == {"expert0": pytest.approx(mean)}


def test_numbers_are_made_equal(pool):
    found = by_what(pool, merge(pool, part({"expert0": 0.4, "expert1": 0.6})))
    (only,) = found["between experts"].parts
    assert only.parameters["weight"] == {"expert0": 0.5, "expert1": 0.5}
    assert "between layers" not in found
    assert "between experts" not in by_what(pool, recipes.uniform(pool))


def test_of_two_models_the_other_one_is_left(pool):
    slerp = Part(
        method=SlerpConfig(),
        models=("expert0", "expert1"),
        parameters={"t": 0.3},
    )

    def weights(recipe: Recipe) -> str:
        return recipe_weights_sha256(pool, recipe, CPU)

    found = by_what(pool, merge(pool, slerp))
    for name, other in (("expert0", "expert1"), ("expert1", "expert0")):
        assert weights(found[name]) == weights(recipes.member(pool, other))
    # Of one alone nothing is left, as without each of its layers where it has all of them.
    found = by_what(pool, merge(pool, part({"expert0": 0.4})))
    assert weights(found["expert0"]) == weights(recipes.member(pool, "base"))


def test_the_order_of_a_merged_models_layers_is_taken_away(pool):
    hops = tuple(Hop(model="merged", layer=layer) for layer in (0, 1, 0, 1, 1))
    path = LayerPath(outer="merged", hops=hops)
    recipe = merge(pool, part({"expert0": 0.4, "expert1": 0.7}), path=path)
    found = by_what(pool, recipe)
    straight = found["between its layers' order and the base's"]
    assert straight.path is None and straight.parts == recipe.parts
    # Layers that the path does not run are left out.
    assert "layer 0" in found and "layer 2" not in found and "layer 3" not in found
    assert complexity(recipe)[1] == 2


def test_a_path_without_an_expert_runs_the_bases_layers(pool):
    hops = [("expert0", 0), ("expert0", 1), ("expert1", 2), ("expert1", 1), ("expert0", 3)]
    path = LayerPath(outer="expert0", hops=tuple(Hop(model=m, layer=n) for m, n in hops))
    recipe = Recipe(members=pool.members, dtype=pool.dtype, path=path)
    found = by_what(pool, recipe)
    without = found["expert0"].path
    assert without is not None and without.outer == "base"
    assert [(hop.model, hop.layer) for hop in without.hops] == [
        (m if m == "expert1" else "base", n) for m, n in hops
    ]
    steps = [what for what in found if what.startswith("steps")]
    assert steps == ["steps 0 to 0", "steps 1 to 1", "steps 2 to 2", "steps 3 to 4"]
    assert complexity(recipe) == (2, 3, 0)


def test_fewer_experts_and_numbers_are_simpler(pool):
    base, parent = recipes.member(pool, "base"), recipes.member(pool, "expert1")
    uniform = recipes.uniform(pool)
    tuned = merge(pool, part({"expert0": 0.4, "expert1": 0.7}))
    layered = merge(pool, part({"expert0": 0.4, "expert1": 0.7}, 0), part({"expert0": 0.2}))
    sizes = [complexity(each) for each in (base, parent, uniform, tuned, layered)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 5
    idle = merge(pool, part({"expert0": 0.0, "expert1": 0.7}))
    assert models_in(idle) == ["expert1"] and models_in(base) == []
    weights = {"base": 1.0, "expert0": 1.0}
    linear = Part(method=LinearConfig(), models=tuple(weights), parameters={"weight": weights})
    assert models_in(merge(pool, linear)) == ["expert0"]
