"""A search that chooses methods and experts, from base, experts and their average."""

from __future__ import annotations

import evomerge
from evomerge.journal import read_journal

SPACE = {
    "kind": "parameter",
    "method": None,
    "methods": [{"kind": "ties"}, {"kind": "task_arithmetic"}, {"kind": "iso_c"}],
    "subset": True,
    "weights_sum": "one",
    "over_depth": {"weight": 2},
}


def test_it_runs_through(workspace, tmp_path):
    config = workspace(
        space=SPACE,
        optimizer={"kind": "nevergrad", "algorithm": "TwoPointsDE"},
        search={"budget": {"candidates": 10}, "landmarks": True, "finalists": 2},
    )
    result = evomerge.run(config, tmp_path / "run")
    told = [e.data for e in read_journal(tmp_path / "run" / "journal.jsonl")[0] if e.kind == "told"]
    assert len(told) == 10
    assert not any(data["outcome"].get("failed") for data in told)
    # Base, average and the two experts first, as points from outside; then what is asked.
    genomes = {data["candidate"]: data["genome"] for data in told}
    assert [genomes[f"e000{n}"][:2] for n in range(4)] == [[0, 0], [1, 1], [1, 0], [0, 1]]
    assert sum(data["ask"] is None for data in told) == 4
    methods = {genome[2] for genome in genomes.values()}
    assert methods <= {0.0, 1.0, 2.0} and len(methods) > 1
    # The base is the very recipe of the baseline.
    state = result.results.state
    assert state.candidates["e0000"].recipe_sha256 == state.candidates["base"].recipe_sha256


def test_choices_by_cma_es_with_parameters_in_groups_of_their_own(workspace, tmp_path):
    config = workspace(
        space={
            "kind": "parameter",
            "method": None,
            "methods": [{"kind": "ties"}, {"kind": "task_arithmetic"}],
            "subset": True,
            "groups": 2,
            "groups_of": {"density": "whole", "weight": {"groups": "whole", "components": True}},
            "fix": {"weight/*/embedding": 0.5, "use/expert0": 1},
        },
        search={"budget": {"candidates": 12}, "finalists": 2},
    )
    run_dir = tmp_path / "run"
    evomerge.run(config, run_dir)
    events = read_journal(run_dir / "journal.jsonl")[0]
    told = [event.data for event in events if event.kind == "told"]
    assert len(told) == 12
    assert not any(data["outcome"].get("failed") for data in told)
    # An expert's use, two methods, four weights and a density of each expert.
    assert {len(data["genome"]) for data in told} == {1 + 2 + 8 + 2}
    assert {data["genome"][0] for data in told} == {0.0, 1.0}
