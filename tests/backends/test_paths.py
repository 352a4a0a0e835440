"""Layers in another order, repeated and scaled: answers are those of the same model run whole."""

from __future__ import annotations

import random

import pytest

from backends.conftest import Hflm, pairs, word
from backends.test_answers import GREEDY, ask, asker, close
from evomerge.space import recipes
from families import FAMILIES, NUM_LAYERS, family_config, make_random_pool
from residents import Resident, path_recipe

STEPS = {
    "repeated": [("base", n, 1.0) for n in (0, 1, 1, 2, 0, 3, 3)],
    "other models": [("expert0", 3, 1.0), ("base", 0, 1.0), ("expert1", 2, 0.7), ("base", 3, 1.2)],
    "short": [("base", 2, 1.0)],
}


@pytest.fixture(scope="module", params=FAMILIES)
def pool(request, tmp_path_factory):
    return make_random_pool(tmp_path_factory.mktemp("pool"), family_config(request.param))


def test_paths_are_answered_as_whole_models(pool):
    resident = Resident(pool)
    made = asker(resident.model)
    draw = random.Random(5)
    shots = word(draw, 20, 20)
    texts = [(shots + word(draw, 1, 14), GREEDY) for _ in range(8)]
    identity = path_recipe(pool, "base", [("base", n, 1.0) for n in range(NUM_LAYERS)])
    found = []
    for recipe in (
        *(path_recipe(pool, "base", steps) for steps in STEPS.values()),
        recipes.member(pool, "base"),
        identity,
    ):
        resident.load(recipe)
        answers = ask(made, "loglikelihood", pairs(30))
        # lm-eval's model is told how many layers there are when it is made.
        oracle = Hflm(resident.model)
        expected = oracle.ask("loglikelihood", pairs(30))
        assert all(close(a, b) for (a, _), (b, _) in zip(answers, expected, strict=True))
        assert ask(made, "generate_until", texts) == oracle.ask("generate_until", texts)
        found.append(answers)
    assert len({tuple(answers) for answers in found}) == len(STEPS) + 1
