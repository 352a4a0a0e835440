"""A preference that came up after the search: a point for it, proposed, measured, on the front."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import evomerge
from commands import run_here
from evomerge.choice.model import model_of
from evomerge.errors import InputError
from evomerge.journal.state import replay
from evomerge.search.preferences import measure_preference, propose
from evomerge.search.run import reopen_run
from fixtures import make_config, make_workspace

INLINE = {"kind": "inline"}
SPACE = {
    "kind": "parameter",
    "method": {"kind": "task_arithmetic"},
    "vary": {"weight": {"low": -1.0, "high": 2.0}},
}
OBJECTIVES = [{"task": "toy_choose", "metric": "brier_score"}, {"task": "toy_write"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    make_workspace(folder)
    config = make_config(
        folder,
        space=SPACE,
        optimizer={"kind": "map"},
        search={"budget": {"candidates": 14}, "finalists": 5},
        score={"objectives": OBJECTIVES},
        workers=INLINE,
    )
    evomerge.run(config, folder / "run")
    return folder


def quietly(_progress) -> None:
    pass


def test_the_proposal_is_the_surrogates_optimum(folder):
    opened = reopen_run(folder / "run")
    try:
        phase = opened.searched_phase(0)
        model = model_of(opened.results, phase)
        goals = opened.results.goals("search")
        low, high = np.array([(d.low, d.high) for d in phase.dimensions]).T
        weights = np.array([0.3, 0.7])
        genome = propose(model, phase, goals, weights)
        assert propose(model, phase, goals, weights) == genome
        points = np.random.default_rng(3).uniform(-1.0, 1.0, (500, len(low)))
        units = 2.0 * (np.array(genome) - low) / (high - low) - 1.0

        def value(at):
            return np.stack([s.mean(np.atleast_2d(at)) for s in model.surrogates], axis=1) @ weights

        assert value(units)[0] <= value(points).min() + 1e-9
    finally:
        opened.close()


def test_it_is_measured_and_joins_the_front(folder):
    before = replay(folder / "run")
    wanted = ("--prefer", "toy_choose=0.9,toy_write=0.1", "--measure", "--json")
    done = run_here("front", "run", *wanted, cwd=folder)
    found = json.loads(done.stdout)
    state = replay(folder / "run")
    name = found["measured"]
    assert name == "preferred-0001" and name not in before.candidates
    candidate = state.candidates[name]
    assert candidate.origin == "preferred" and candidate.scores("validation") is not None
    assert candidate.scores("holdout") is None
    entry = next(entry for entry in found["entries"] if entry["candidate"] == name)
    assert entry["measured"]["toy_choose"] == candidate.scores("validation")["toy_choose"].value
    assert state.decided["chosen"] == before.decided["chosen"]
    assert state.num_searched == before.num_searched
    resumed = evomerge.resume(folder / "run").results.state
    assert resumed.decided["chosen"] == state.decided["chosen"]
    assert resumed.decided["front"] == state.decided["front"]


@pytest.mark.parametrize(
    ("preference", "says"),
    [
        ({"toy_chose": 1.0}, "no objective 'toy_chose'; did you mean 'toy_choose'"),
        ({"toy_choose": -1.0}, "weights are 0 or more"),
        ({"toy_choose": 0.0}, "weights are 0 or more"),
    ],
)
def test_preferences_that_are_none(preference, says, folder):
    with pytest.raises(InputError, match=says):
        measure_preference(folder / "run", preference, quietly)


def test_measure_wants_a_preference(folder):
    done = run_here("front", "run", "--measure", cwd=folder)
    assert done.returncode == 2 and "give --prefer" in done.stderr


def test_a_search_without_surrogates_proposes_nothing(folder):
    space = {"kind": "remove_layers", "up_to": 1}
    optimizer = {"kind": "nsga2", "population": 4}
    path = make_config(folder, search={"budget": {"candidates": 4}}, workers=INLINE)
    config = yaml.safe_load(path.read_text()) | {"space": space, "optimizer": optimizer}
    path.write_text(yaml.safe_dump(config))
    evomerge.run(path, folder / "few")
    with pytest.raises(InputError, match="no surrogates can be fitted"):
        measure_preference(folder / "few", {"toy_choose": 1.0}, quietly)
