"""The shipped pool is a real merging problem, and its data is what the code makes."""

from __future__ import annotations

import pytest

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH, EXPERTS, POOL_DIR
from evomerge.record import Candidate
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker


@pytest.fixture(scope="module")
def shares():
    """Score by skill of every parent and of their average, on 400 documents a skill."""
    # No holdout document is looked at here: search and validation documents will do.
    setup = set_up(load_config(CONFIG_PATH), CONFIG_PATH.parent)
    worker = MergeWorker(setup.worker_spec())
    models = {name: recipes.member(setup.pool, name) for name in ("base", *EXPERTS)}
    models["uniform"] = recipes.uniform(setup.pool)
    found = {}
    for name, recipe in models.items():
        found[name] = dict.fromkeys(EXPERTS, 0.0)
        for split in ("search", "validation"):
            blocks = tuple(enumerate(setup.blocks(split)))
            result = worker.evaluate(Job(name, recipe.to_json(), split, blocks, len(blocks)))
            candidate = Candidate(name, "baseline", recipe.sha256, None, None, None, 0.0)
            candidate.add(split, len(blocks), result.moments)
            for task, estimate in candidate.scores(split).items():
                found[name][task.removeprefix("demo_")] += estimate.value / 2
    return found


def test_every_expert_is_the_best_model_on_its_own_skill(shares):
    for expert in EXPERTS:
        others = [shares[name][expert] for name in ("base", *EXPERTS) if name != expert]
        assert shares[expert][expert] > max(others) + 0.05


def test_no_parent_is_good_at_everything(shares):
    for name in ("base", *EXPERTS):
        assert min(shares[name].values()) < 0.75


def test_the_average_loses_to_the_right_expert(shares):
    assert max(shares[expert][expert] - shares["uniform"][expert] for expert in EXPERTS) > 0.05


def test_the_pool_is_small():
    size_bytes = sum(path.stat().st_size for path in POOL_DIR.rglob("*") if path.is_file())
    assert size_bytes < 12 << 20
