"""The shipped pool is a real merging problem, and its data is what the code makes."""

from __future__ import annotations

import math

import pytest

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH, EXPERTS, POOL_DIR
from evomerge.demo.pool import train_pool
from evomerge.journal import Candidate
from evomerge.score import combine
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker


def score(setup, models, splits):
    """Estimates by model and skill.

    No holdout document is looked at here.
    """
    worker = MergeWorker(setup.worker_spec())
    found = {}
    for name, recipe in models.items():
        shares = {expert: [] for expert in EXPERTS}
        for split in splits:
            blocks = tuple(enumerate(setup.blocks(split)))
            result = worker.evaluate(Job(name, recipe.to_json(), split, blocks, len(blocks)))
            candidate = Candidate(name, "baseline", recipe.sha256, None, None, None, 0.0)
            candidate.add(split, len(blocks), result.moments)
            for task, estimate in candidate.scores(split).items():
                shares[task.removeprefix("demo_")].append(estimate)
        found[name] = {expert: combine(parts, [1] * len(parts)) for expert, parts in shares.items()}
    return found


def parents(setup):
    return {name: recipes.member(setup.pool, name) for name in ("base", *EXPERTS)}


@pytest.fixture(scope="module")
def setup():
    return set_up(load_config(CONFIG_PATH), CONFIG_PATH.parent)


@pytest.fixture(scope="module")
def shares(setup):
    """Score by model and skill, on 200 documents a skill."""
    models = {**parents(setup), "uniform": recipes.uniform(setup.pool)}
    estimates = score(setup, models, ["validation"])
    return {
        model: {skill: estimate.value for skill, estimate in by_skill.items()}
        for model, by_skill in estimates.items()
    }


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


@pytest.mark.long
def test_training_again_gives_the_same_scores(setup, tmp_path):
    train_pool(1, tmp_path)
    models = ", ".join(str(tmp_path / name) for name in EXPERTS)
    overrides = [f"pool.base={tmp_path / 'base'}", f"pool.experts=[{models}]"]
    trained = set_up(load_config(CONFIG_PATH, overrides), CONFIG_PATH.parent)
    estimates, again = (score(s, parents(s), ["search", "validation"]) for s in (setup, trained))
    for model, by_skill in again.items():
        for skill, estimate in by_skill.items():
            shipped = estimates[model][skill]
            error = math.hypot(shipped.standard_error, estimate.standard_error)
            assert abs(shipped.value - estimate.value) <= 3 * error
