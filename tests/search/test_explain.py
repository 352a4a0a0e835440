"""A chosen model without each of its parts, measured; and a simpler one that is as good."""

from __future__ import annotations

import json
import shutil

import pytest

import evomerge
from commands import run_here
from evomerge.choice.explanation import explanation, is_as_good
from evomerge.choice.table import final_table
from evomerge.errors import InputError
from evomerge.journal.state import replay
from evomerge.record.verdicts import explanation_lines, verdict_lines
from evomerge.search.explain import explain_candidate
from evomerge.search.run import reopen_run
from fixtures import make_config, make_workspace

OBJECTIVES = [{"task": "toy_choose", "metric": "brier_score"}, {"task": "toy_write"}]


def quietly(_progress) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    make_workspace(folder)
    config = make_config(
        folder,
        search={"budget": {"candidates": 8}, "finalists": 4},
        score={"objectives": OBJECTIVES},
        workers={"kind": "inline"},
    )
    evomerge.run(config, folder / "run")
    return folder


@pytest.fixture
def run_dir(folder, tmp_path):
    return shutil.copytree(folder / "run", folder / tmp_path.name)


def searched(run_dir) -> str:
    """A candidate of the search, whoever is chosen."""
    return next(c.id for c in replay(run_dir).candidates.values() if c.is_searched)


def test_what_a_part_is_worth_is_the_paired_difference(run_dir):
    name = explain_candidate(run_dir, searched(run_dir), quietly)
    results = evomerge.Result(run_dir).results
    found = explanation(results, name)
    assert found is not None and found["candidate"] == name
    whats = [part["what"] for part in found["parts"]]
    assert whats[:2] == ["expert0", "expert1"] and whats[-1] == "between experts"
    for part in found["parts"]:
        candidate = results.state.candidates[part["candidate"]]
        assert candidate.is_scored("validation") and candidate.scores("holdout") is None
        expected = results.difference(name, candidate.id, "validation")
        assert part["combined"]["value"] == expected.value
        worse = results.combined(name, "validation").value
        assert expected.value == pytest.approx(
            worse - results.combined(candidate.id, "validation").value
        )
    aside = [c for c in results.state.candidates.values() if c.origin == "ablation"]
    assert aside and all(c.is_aside and not c.is_searched for c in aside)


def test_it_is_measured_once(run_dir):
    name = searched(run_dir)
    explain_candidate(run_dir, name, quietly)
    before = (run_dir / "journal.jsonl").read_text().splitlines()
    explain_candidate(run_dir, name, quietly)
    after = (run_dir / "journal.jsonl").read_text().splitlines()
    kinds = {json.loads(line)["kind"] for line in after[len(before) :]}
    assert "result" not in kinds and "enqueued" not in kinds
    assert replay(run_dir).decided["explained"].keys() == {name}


def test_the_simplest_is_within_one_standard_error(run_dir):
    name = explain_candidate(run_dir, searched(run_dir), quietly)
    run = reopen_run(run_dir)
    try:
        found = run.state.decided["explained"][name]["simplest"]
        assert found is not None
        assert found["experts"][1] <= found["experts"][0]
        assert is_as_good(run.results, name, found["candidate"])
    finally:
        run.close()


def test_a_search_explains_what_it_has_chosen(folder, tmp_path):
    config = make_config(
        folder,
        search={"budget": {"candidates": 8}, "finalists": 4, "explain": True},
        space={"vary": {"weight": {"low": 0.4, "high": 1.0}}},
        score={"objectives": OBJECTIVES[:1]},
        workers={"kind": "inline"},
    )
    result = evomerge.run(config, tmp_path / "run")
    state = result.results.state
    table = final_table(result.results)
    lines = verdict_lines(table)
    # Weights of 0.4 and more are no model of the pool, which would have no parts.
    assert not state.candidates[table["chosen"]].is_member
    assert [line for line in lines if line.startswith("ablation: ")]
    assert [line for line in lines if line.startswith("simplest: ")]
    assert "What its parts are worth" in (tmp_path / "run/report.html").read_text()
    simplest = state.decided["simplest"]
    if simplest is not None:
        # It is compared on holdout as well.
        assert state.candidates[simplest].scores("holdout") is not None
        assert "simplest" in [entry["role"] for entry in table["comparisons"]]


def test_what_the_simplest_is_stands_beside_its_id():
    gain = {"value": 0.01, "low": -0.01, "high": 0.03, "distinguishable": False}
    differences = {"combined": gain, "objectives": {"a": gain}}
    part = {"kind": "expert", "what": "math", "candidate": "ablation-0001", **differences}
    sizes = {"experts": [2, 1], "jumps": [0, 0], "numbers": [2, 1]}
    simplest = {"candidate": "ablation-0001", **sizes, **differences}
    found = {"candidate": "c00007", "parts": [part], "failed": [], "simplest": simplest}
    unit = {"metric": "acc", "unit": "", "is_share": True, "higher_is_better": True}
    ablation, line = explanation_lines(found, {"units": {"a": unit}, "combined_unit": unit})
    assert ablation.startswith("ablation: 0 of 1 parts of c00007") and "expert math" in ablation
    assert line == (
        "simplest: ablation-0001 (c00007 without expert math) has 1 expert, 1 number, c00007 2 "
        "experts, 2 numbers; it differs by -1.0 points, 95 % interval -3.0 to +1.0 on validation, "
        "at most one standard error for the worse"
    )


def test_a_model_of_the_pool_has_no_parts(run_dir):
    with pytest.raises(InputError, match="a model of the pool itself"):
        explain_candidate(run_dir, "parent-expert0", quietly)
    with pytest.raises(InputError, match="no candidate 'nobody'"):
        explain_candidate(run_dir, "nobody", quietly)


def test_the_command_prints_a_table_and_words(run_dir):
    name = searched(run_dir)
    done = run_here("explain", run_dir, "--candidate", name, cwd=run_dir.parent)
    assert done.returncode == 0, done.stderr
    assert f"{name}: how much worse without each part, on validation" in done.stdout
    assert "expert expert0" in done.stdout and "simplest: " in done.stdout
    done = run_here("explain", run_dir, "--candidate", name, "--json", cwd=run_dir.parent)
    assert json.loads(done.stdout)["candidate"] == name
