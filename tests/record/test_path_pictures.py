"""What the report draws of layer orders."""

from __future__ import annotations

import pytest

from evomerge.record.path_pictures import path_pictures
from runs import give_scores, new_run

SPACE = {"kind": "layer_order", "models": ["expert0", "expert1"], "ends": "free"}


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path, space=SPACE, optimizer={"kind": "nevergrad"})
    yield run
    run.close()


def add(run, value, genome):
    candidate = run.add_asked(len(run.state.candidates), genome)
    give_scores(run, candidate, value)
    return candidate.id


def genomes(run, count):
    """The whole sequence, and those that leave one bit of it out."""
    start = list(run.space(0).dimensions)
    whole = [d.high for d in start]
    bits = [n for n, d in enumerate(start) if d.name.startswith("use/")]
    return [
        run.space(0).canonical(tuple(0.0 if n == left_out else x for n, x in enumerate(whole)))
        for left_out in [None, *bits][:count]
    ]


def pictures(run):
    return path_pictures(run.results, run.recipe)


def test_the_five_best_and_how_often_layers_are_used(run):
    values = (0.2, 0.7, 0.3, 0.6, 0.4, 0.5)
    ids = [add(run, v, g) for v, g in zip(values, genomes(run, 6), strict=True)]
    found = pictures(run)
    assert [path["candidate"] for path in found["paths"]] == [ids[n] for n in (1, 3, 5, 4, 2)]
    assert [path["score"] for path in found["paths"]] == [
        "0.700",
        "0.600",
        "0.500",
        "0.400",
        "0.300",
    ]
    assert found["num_candidates"] == 6
    assert list(found["models"]) == ["expert0", "expert1"]
    assert len(set(found["models"].values())) == 2
    recipes = [run.recipe(run.state.candidates[name]) for name in ids]
    for model, shares in found["used"].items():
        for layer, share in enumerate(shares):
            used = [any((h.model, h.layer) == (model, layer) for h in r.path.hops) for r in recipes]
            assert share == sum(used) / 6


def test_the_chosen_one_is_drawn_wherever_it_stands(run):
    values = (0.2, 0.7, 0.3, 0.6, 0.4, 0.5)
    ids = [add(run, v, g) for v, g in zip(values, genomes(run, 6), strict=True)]
    run.record("decided", what="chosen", value=ids[0])
    paths = pictures(run)["paths"]
    assert [path["candidate"] for path in paths] == [ids[n] for n in (0, 1, 3, 5, 4)]
    assert [path["chosen"] for path in paths] == [True, False, False, False, False]


def test_one_path_is_drawn_once(run):
    genome = genomes(run, 1)[0]
    first = add(run, 0.5, genome)
    add(run, 0.5, genome)
    (path,) = pictures(run)["paths"]
    assert path["candidate"] == first
    recipe = run.recipe(run.state.candidates[first])
    assert [(h["model"], h["layer"]) for h in path["hops"]] == [
        (hop.model, hop.layer) for hop in recipe.path.hops
    ]
    assert {h["scale"] for h in path["hops"]} == {
        "" if hop.scale == 1.0 else f"{hop.scale:.2f}" for hop in recipe.path.hops
    }


def test_a_run_of_merges_has_none(tmp_path):
    run = new_run(tmp_path)
    add(run, 0.5, (0.5, 0.5))
    assert pictures(run) is None
    run.close()
