"""What a search is compared with where that is asked for: the greedy soup and random search."""

from __future__ import annotations

import json

import pytest

import evomerge
from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.journal.journal import read_journal
from evomerge.journal.state import normal_form, replay
from evomerge.record.report import markdown_table
from evomerge.search.check import check
from fixtures import make_config, make_workspace

INLINE = {"kind": "inline"}
SEARCH = {"budget": {"candidates": 6}, "finalists": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    make_workspace(folder)
    for name, wanted in (("asked", ["greedy_soup", "random"]), ("plain", [])):
        config = make_config(folder, search={**SEARCH, "baselines": wanted}, workers=INLINE)
        evomerge.run(config, folder / name)
    return folder


def test_the_search_is_the_same(folder):
    def searched(name: str) -> list:
        forms = normal_form(read_journal(folder / name / "journal.jsonl")[0])
        return [form[:4] for form in forms if form[0].startswith("c")]

    assert searched("asked") == searched("plain")
    chosen = [replay(folder / name).decided["chosen"] for name in ("asked", "plain")]
    assert chosen[0] == chosen[1]


def test_the_soup_is_greedy_on_validation(folder):
    state = replay(folder / "asked")
    scores = {
        name: evomerge.Result(folder / "asked").results.combined(name, "validation").value
        for name in state.candidates
        if state.candidates[name].scores("validation") is not None
    }
    experts = sorted(("parent-expert0", "parent-expert1"), key=lambda n: -scores[n])
    first, second = (name.removeprefix("parent-") for name in experts)
    tried = f"greedy-soup-of-{first}-{second}"
    soup = state.candidates["greedy-soup"]
    assert state.candidates[tried].origin == "soup" and soup.origin == "baseline"
    better = tried if scores[tried] >= scores[experts[0]] else experts[0]
    assert soup.recipe_sha256 == state.candidates[better].recipe_sha256
    assert scores["greedy-soup"] == scores[better]
    assert state.candidates[tried].scores("search") is None


def test_random_search_has_the_same_budget_and_choice(folder):
    result = evomerge.Result(folder / "asked")
    state, results = result.results.state, result.results
    drawn = state.of_origin("random")
    assert len(drawn) == state.num_searched == 6
    assert len({candidate.recipe_sha256 for candidate in drawn}) == 6
    ids = results.ranked([c.id for c in drawn], "search")[:2]
    assert state.decided["random-finalists"] == ids
    assert state.decided["random"] == results.ranked(ids, "validation")[0]
    assert state.candidates[state.decided["random"]].scores("holdout") is not None
    others = [c for c in drawn if c.id != state.decided["random"]]
    assert all(candidate.scores("holdout") is None for candidate in others)


def test_they_are_in_the_table(folder):
    result = evomerge.Result(folder / "asked")
    table = final_table(result.results)
    names = [row["candidate"] for row in table["rows"]]
    assert "greedy-soup" in names and table["comparisons"][-1]["role"] == "random"
    assert names[-1] == result.results.state.decided["random"]
    words = markdown_table(table)
    assert "against random search with as many candidates (random-0000" in words
    assert "| best parent of each | " in words
    synergy = table["synergy"]
    assert set(synergy["best"]) == {"toy_choose", "toy_write"}
    for name, parent in synergy["best"].items():
        rows = {row["candidate"]: row["splits"] for row in table["rows"]}
        assert (
            synergy["splits"]["holdout"]["objectives"][name]
            == (rows[parent]["holdout"]["objectives"][name])
        )
    ours = rows[table["chosen"]]["holdout"]["combined"]["value"]
    theirs = synergy["splits"]["holdout"]["combined"]["value"]
    assert synergy["value"] == pytest.approx(ours - theirs)
    assert "synergy, " in words and " against the best parent of each objective" in words


def test_check_says_what_random_search_costs(folder):
    config = make_config(folder, search={**SEARCH, "baselines": ["random"]}, workers=INLINE)
    lines = check(load_config(config), folder).lines
    assert "random search: as many candidates again, each on all search documents" in lines


def test_an_interrupted_comparison_goes_on(folder):
    run_dir = folder / "asked"
    lines = (run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    kinds = [json.loads(line) for line in lines]
    stage = next(
        n
        for n, event in enumerate(kinds)
        if event["kind"] == "stage_started" and event["data"]["stage"] == "random"
    )
    copy = folder / "cut"
    (copy / "documents").mkdir(parents=True)
    for path in (run_dir / "documents").iterdir():
        (copy / "documents" / path.name).write_bytes(path.read_bytes())
    (copy / "recipes").mkdir()
    (copy / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    (copy / "journal.jsonl").write_text("".join(lines[: stage + 5]))
    result = evomerge.resume(copy)
    before = read_journal(run_dir / "journal.jsonl")[0]
    assert normal_form(read_journal(copy / "journal.jsonl")[0]) == normal_form(before)
    assert result.results.state.decided["random"] == replay(run_dir).decided["random"]
