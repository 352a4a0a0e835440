"""Several searches in one run: a merge, then the order of layers of the merged model."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import evomerge
from commands import fork, kill_and_resume, says
from evomerge.config import Config
from evomerge.journal import normal_form, read_journal
from evomerge.optimize import Goal
from evomerge.recipe import Recipe
from evomerge.search.setup import set_up
from families import family_config, save_random

ROOT = Path(__file__).parents[2]
EXPERTS = ("shisa", "wizardmath", "abel")

PHASES = [
    {
        "name": "parameter_space",
        "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
        "budget": {"candidates": 6},
    },
    {
        "name": "layer_order",
        "space": {"kind": "layer_order", "models": ["merged", "expert1"], "ends": "free"},
        "optimizer": {"kind": "nevergrad"},
        "budget": {"candidates": 8},
    },
]


def make_hybrid(workspace, phases=PHASES):
    """A configuration with phases in the place of one search."""
    path = workspace()
    config = yaml.safe_load(path.read_text())
    del config["space"], config["search"]["budget"]
    path.write_text(yaml.safe_dump({**config, "phases": phases}))
    return path


def events_of(run_dir):
    return read_journal(run_dir / "journal.jsonl")[0]


@pytest.fixture
def undisturbed(workspace, tmp_path):
    return evomerge.run(make_hybrid(workspace), tmp_path / "whole")


def test_the_winner_of_the_first_is_model_a_of_the_second(undisturbed):
    state = undisturbed.results.state
    winner = state.candidates[state.decided["winner-parameter_space"]]
    assert winner.phase == 0
    first, *others = state.searched(1)
    assert first.origin == "enqueued" and len(others) == 7
    recipe = Recipe.from_json(first.recipe_json)
    assert recipe.merge.sha256 == winner.recipe_sha256
    assert {hop.model for hop in recipe.path.hops} == {"merged"}
    # The same model, and so the same scores.
    for name, estimate in winner.scores("search").items():
        assert first.scores("search")[name] == estimate
    stages = [e.data["stage"] for e in events_of(undisturbed.run_dir) if e.kind == "stage_ended"]
    assert stages == [
        "baselines",
        "search-parameter_space",
        "finalists-parameter_space",
        "search-layer_order",
        "finalists-layer_order",
        "holdout",
        "report",
    ]
    report = (undisturbed.run_dir / "report.html").read_text()
    assert "Share of the 8 candidates with a path" in report
    assert report.count('class="hop"') >= 5
    frame = undisturbed.candidates
    assert frame["genome/weight/expert0"].notna().sum() >= 6
    assert frame["genome/use/merged.1"].notna().sum() == 8


@pytest.mark.parametrize(
    "last", [("p2-c00003",), pytest.param(("c00003", "p2-c00003"), marks=pytest.mark.long)]
)
def test_sigkill_in_a_phase_changes_nothing(last, undisturbed, workspace, tmp_path):
    config = make_hybrid(workspace)
    run_dir = tmp_path / "killed"
    journal = run_dir / "journal.jsonl"
    process = fork("search", config, "--run-dir", run_dir, cwd=tmp_path)
    moments = [says(journal, f'"candidate":"{name}"') for name in last]
    kill_and_resume(process, run_dir, moments)
    killed, whole = events_of(run_dir), events_of(undisturbed.run_dir)
    assert normal_form(killed) == normal_form(whole)
    assert not [event for event in killed if event.kind == "rebased"]
    chosen = {e.data["value"] for e in (*killed, *whole) if e.data.get("what") == "chosen"}
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda phases: phases[::-1], "winner of 'layer_order' is a path"),
        (lambda phases: [phases[0], phases[0]], "two have one name"),
        (lambda phases: [{**phases[0], "name": "search"}], "'search' is the name of a stage"),
        (
            lambda phases: [phases[0], {**phases[1], "optimizer": {"kind": "cma"}}],
            "cma moves numbers",
        ),
        (
            lambda phases: [
                phases[0],
                {**phases[1], "space": {"kind": "layer_order", "models": []}},
            ],
            "phase 'layer_order': space.models: name at least one model",
        ),
    ],
)
def test_phases_that_cannot_be_run_are_refused_at_once(change, says, workspace, tmp_path):
    phases = [dict(phase) for phase in PHASES]
    if "path" in says:
        phases[1]["space"] = {"kind": "layer_order", "ends": "free", "encoding": "continuous"}
        phases[1]["optimizer"] = {"kind": "cma"}
    config = make_hybrid(workspace, change(phases))
    with pytest.raises(evomerge.errors.InputError, match=says):
        evomerge.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sections_and_phases_exclude_each_other(workspace, tmp_path):
    path = workspace()
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "phases": PHASES}))
    with pytest.raises(evomerge.errors.InputError, match="space: stands in each phase"):
        evomerge.run(path, tmp_path / "run")


def test_a_joint_space_is_searched(tmp_path, workspace):
    path = workspace(search={"budget": {"candidates": 8}, "finalists": 2, "export": True})
    config = yaml.safe_load(path.read_text())
    config["space"] = {
        "kind": "joint",
        "parameter": PHASES[0]["space"] | {"groups": "layer"},
        "order": {"models": ["merged", "expert0"], "ends": "free", "max_hops": 4},
    }
    config["optimizer"] = {"kind": "nevergrad"}
    path.write_text(yaml.safe_dump(config))
    result = evomerge.run(path, tmp_path / "run")
    assert (tmp_path / "run/export/config.json").exists()
    assert len(result.results.state.searched(0)) == 8
    for candidate in result.results.state.searched(0)[1:]:
        recipe = yaml.safe_load((tmp_path / f"run/recipes/{candidate.id}.yaml").read_text())
        assert 1 <= len(recipe["path"]["hops"]) <= 4 and len(recipe["parts"]) == 5


def test_the_papers_configuration_runs_on_a_stand_in(tmp_path, pool_and_tasks):
    """Four layers of the same family in the place of 32; everything else but budgets as it is."""
    for seed, name in enumerate(("base", *EXPERTS)):
        save_random(tmp_path / name, family_config("Mistral"), seed)
    config = yaml.safe_load((ROOT / "configs/paper_7b.yaml").read_text())
    config["pool"] |= {"base": "base", "experts": ["shisa", "wizardmath", "abel"]}
    config["score"] |= {
        "include_path": [str(pool_and_tasks / "tasks")],
        "objectives": [{"task": "toy_choose"}],
        "splits": {"search": 6, "validation": 6, "holdout": 6},
    }
    config["workers"] = {"kind": "inline"}
    config["record"] = {"enabled": False}
    setup = set_up(Config.model_validate(config), tmp_path)
    merge, order = setup.spaces
    names = [f"{parameter}/{n}" for parameter in ("weight", "density") for n in EXPERTS]
    assert [d.name for d in merge.dimensions] == names
    # Two models of four layers, three times, but for A's first and last, and every pair of layers.
    assert len(order.dimensions) == 3 * 8 - 2 + 8 * 8
    goals = [Goal()] * len(setup.objectives)
    assert setup.make_optimizer(0, merge, goals).max_outstanding == 9
    assert setup.make_optimizer(1, order, goals).max_outstanding == 128

    config["phases"][0]["budget"]["candidates"] = 3
    config["phases"][1]["budget"]["candidates"] = 4
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    result = evomerge.run(path, tmp_path / "run")
    first, *others = result.results.state.searched(1)
    assert first.origin == "enqueued" and len(others) == 3
