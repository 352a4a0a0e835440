"""Methods of other packages that do what no method may: nothing of it reaches another candidate."""

from __future__ import annotations

import pytest
import torch

from evomerge.config import load_config
from evomerge.errors import CandidateError, SpoiltError
from evomerge.merge import Engine, engine
from evomerge.methods.task_arithmetic import TaskArithmetic
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job, WorkersConfig, start_group
from fixtures import make_workspace


@pytest.fixture
def odd(monkeypatch):
    """Makes task arithmetic a method of another package, with a fault of its own."""
    combine = TaskArithmetic.combine

    def be(what):
        def combined(self, whole, statistics, coefficients):
            merged = combine(self, whole, statistics, coefficients)
            match what:
                case "writes":
                    whole.models[0].mul_(2.0)
                case "short":
                    return merged[:1].clone()
                case "whole numbers":
                    return merged.to(torch.int64)
            return merged

        monkeypatch.setattr(TaskArithmetic, "combine", combined)
        monkeypatch.setattr(engine, "OURS", "nobody.")

    return be


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    return set_up(load_config(make_workspace(folder)), folder)


@pytest.fixture
def recipe(setup):
    return recipes.task_arithmetic(setup.pool, 0.5)


def test_one_that_keeps_to_the_rules(setup, recipe, odd):
    before = dict(Engine(setup.pool).tensors(recipe))
    odd("nothing")
    for name, tensor in Engine(setup.pool).tensors(recipe):
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("short", r"'task_arithmetic' gives torch.float32 of shape \(1,\) for a block of \d+ num"),
        ("whole numbers", r"method 'task_arithmetic' gives torch.int64 of shape"),
    ],
)
def test_a_result_of_another_shape_or_type_is_the_candidates_fault(setup, recipe, odd, what, says):
    odd(what)
    with pytest.raises(CandidateError, match=says):
        list(Engine(setup.pool).tensors(recipe))


def test_one_that_writes_into_its_operands_is_noticed(setup, recipe, odd):
    odd("writes")
    with pytest.raises(SpoiltError, match=r"'task_arithmetic' has changed its operands \(.*\)"):
        list(Engine(setup.pool).tensors(recipe))


def test_its_worker_is_replaced_and_the_next_candidate_is_what_it_was(
    setup, recipe, odd, monkeypatch
):
    group = start_group(WorkersConfig(kind="inline"), setup.worker_spec())
    blocks = tuple(enumerate(setup.blocks("search")))

    def score(candidate, recipe):
        group.submit(Job(candidate, recipe.to_json(), "search", blocks[:1], len(blocks)))
        (finished,) = group.wait(60.0)
        return finished

    expert = recipes.member(setup.pool, "expert0")
    before = score("before", expert).result.moments
    odd("writes")
    finished = score("odd", recipe)
    assert finished.result is None and finished.blame == "candidate"
    assert finished.reason.startswith("SpoiltError: method 'task_arithmetic' has changed its ope")
    while not group.num_idle:
        group.wait(60.0)
    assert score("after", expert).result.moments == before
    group.close()
