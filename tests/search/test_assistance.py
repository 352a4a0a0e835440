"""Searches on samples of documents: estimated alike by any actors, killed and resumed or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import evomerge
from commands import run_here
from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.fidelity import difference_estimate
from evomerge.journal import normal_form
from evomerge.record.report import markdown_table, render_html
from evomerge.score import Approximation
from evomerge.search import assistance
from evomerge.search.api import Result
from evomerge.search.check import check
from evomerge.search.mend import note_lost_documents
from evomerge.search.run import reopen_run
from evomerge.search.summary import model_card
from fixtures import make_config, make_workspace
from runs import new_run
from samples import ASSISTED, SCORE, assisted_run, cut, errors_of, events, work


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assisted")
    return work(assisted_run(folder))


def test_candidates_are_scored_on_the_sample_of_their_set(done):
    searched = done.state.searched(0)
    assert len(searched) == 40
    groups = done.state.phases[0].sets
    assert [name for group in groups for name in group.candidates] == [c.id for c in searched]
    for candidate in searched:
        group = candidate.sampled.group
        scores = candidate.scores("search")
        on_purpose = candidate.id in group.full
        assert candidate.is_scored("search") == on_purpose
        assert group.num_documents_of(candidate.id) == 12
        kept = [
            done.results.documents(candidate.id, "search", measure)
            for measure in done.setup.tasks.measures
        ]
        assert sum(map(len, kept)) == (40 if on_purpose else 12)
        for objective, values in zip(done.setup.objectives, kept, strict=True):
            score = scores[objective.name]
            if on_purpose:
                assert not isinstance(score, Approximation)
                assert score.value == pytest.approx(np.mean(list(values.values())))
            else:
                assert set(values) == set(group.documents[objective.task])
                assert score.num_documents == len(values)
                assert 0.0 < score.design_error <= score.standard_error


def test_another_set_has_another_sample(done):
    drawn = [tuple(group.documents.items()) for group in done.state.phases[0].sets]
    assert len(set(map(str, drawn))) == len(drawn) > 3


def test_what_was_foretold_follows_from_what_had_been_told(done):
    """Not from what is known by now: predictors are those of the first ask of a set."""
    told = [c.told for c in done.state.searched(0)]
    assert told == sorted(told)
    for group, data in zip(done.state.phases[0].sets, events(done, "sampled"), strict=True):
        name = group.candidates[0]
        first = next(e.seq for e in done.journal.events if e.data.get("candidate") == name)
        before = [e for e in done.journal.events if e.kind == "told" and e.seq < first]
        assert group.num_told == data["num_told"] == len(before)
        assert {p["kind"] for p in group.predictors.values()} <= {
            *("mean", "kernel", "quadratic", "item_response")
        }


def test_estimates_are_unbiased_and_their_errors_right(done):
    _, errors, sizes = errors_of(done)
    assert len(errors) == 80
    assert abs(errors.mean()) < 3.0 * errors.std() / np.sqrt(len(errors)) + 0.01
    assert (np.abs(errors) < 1.96 * sizes).mean() > 0.85


def test_optimizers_are_told_that_they_are_estimates(done):
    for data in events(done, "told"):
        outcome = data["outcome"]
        is_full = done.state.candidates[data["candidate"]].is_scored("search")
        assert ("design_errors" in outcome) == (not is_full)


def test_finalists_are_measured_in_full(done):
    finalists = done.state.decided["finalists"]
    assert finalists == done.state.decided["ranking-search"][:3]
    for name in finalists:
        scores = done.state.candidates[name].scores("validation")
        assert not any(isinstance(score, Approximation) for score in scores.values())
        assert sum(score.num_documents for score in scores.values()) == 20


@pytest.mark.parametrize("optimizer", ["cma", "map", "random"])
def test_the_same_with_any_number_of_actors(optimizer, tmp_path):
    settings = {"optimizer": {"kind": optimizer}, "candidates": 24}
    runs = [
        work(assisted_run(tmp_path / name, **settings), count, seed)
        for name, count, seed in (("1", 1, None), ("2", 2, 5), ("7", 7, 3))
    ]
    forms = [normal_form(run.journal.events) for run in runs]
    assert forms[0] == forms[1] == forms[2]
    assert runs[0].state.decided == runs[1].state.decided == runs[2].state.decided


@pytest.mark.parametrize("share", [0.25, 0.4, 0.55, 0.7, 0.85])
@pytest.mark.parametrize("num_actors", [1, 2])
def test_a_run_that_was_killed_ends_as_one_that_was_not(share, num_actors, done, tmp_path):
    lines = (done.run_dir / "journal.jsonl").read_text().splitlines()
    cut(done, tmp_path / "run", int(share * len(lines)))
    resumed = work(reopen_run(tmp_path / "run", strict=True), num_actors, 4)
    assert normal_form(resumed.journal.events) == normal_form(done.journal.events)
    assert resumed.state.decided == done.state.decided


def test_a_run_that_was_killed_while_a_set_was_asked(done, tmp_path):
    """Some of its candidates are journaled, and no sample yet."""
    lines = (done.run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    places = [n for n, line in enumerate(lines) if json.loads(line)["kind"] == "sampled"]
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    (run_dir / "journal.jsonl").write_text("".join(lines[: places[2] - 2]))
    resumed = work(reopen_run(run_dir, strict=True))
    assert normal_form(resumed.journal.events) == normal_form(done.journal.events)


def test_documents_that_are_lost_are_scored_again(done, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    part = next(iter(done.state.candidates["c00011"].sampled.parts))
    (run_dir / "documents" / part).unlink()
    run = reopen_run(run_dir)
    note_lost_documents(run)
    assert not run.state.candidates["c00011"].is_done_on("search")
    work(run)
    again = {c.id: c.scores("search") for c in run.state.searched(0)}
    assert again == {c.id: c.scores("search") for c in done.state.searched(0)}


def test_the_number_of_documents_follows_from_the_errors(tmp_path):
    run = work(assisted_run(tmp_path, fidelity={"kind": "assisted"}, candidates=30))
    counts = [data["count"] for data in events(run, "sampled")]
    assert all(16 <= count <= 40 for count in counts)
    assert len(set(counts)) > 1


def test_a_budget_of_documents_counts_samples(tmp_path):
    search = {
        "budget": {"documents": 200},
        "finalists": 2,
        "fidelity": {**ASSISTED, "calibrate": 0},
    }
    run = work(new_run(tmp_path, search=search, score=SCORE))
    # Of whole sets, of six.
    assert run.state.phases[0].num_documents == 18 * 12
    assert len(run.state.searched(0)) == 18


def test_a_budget_of_tokens_ends_a_search(tmp_path):
    search = {"budget": {"tokens": 260}, "finalists": 2, "fidelity": {**ASSISTED, "calibrate": 0}}
    run = work(new_run(tmp_path, search=search, score=SCORE))
    # A simulated document has one token; sets of six candidates have 72.
    assert run.state.phases[0].num_tokens == 288
    assert "budget of 260 tokens" in [data.get("reason") for data in events(run, "stage_ended")]
    lines = (run.run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    run_dir = tmp_path / "again"
    shutil.copytree(run.run_dir, run_dir)
    (run_dir / "journal.jsonl").write_text("".join(lines[: len(lines) // 2]))
    resumed = work(reopen_run(run_dir, strict=True))
    assert normal_form(resumed.journal.events) == normal_form(run.journal.events)


def test_estimates_have_columns_of_their_own(done):
    rows = Result(done.run_dir).candidates.loc[[c.id for c in done.state.searched(0)]]
    for name, row in rows.iterrows():
        is_measured = done.state.candidates[name].is_scored("search")
        assert np.isfinite(row["search/combined"]) == is_measured
        assert np.isfinite(row["search_estimate/combined"]) != is_measured
    # A model's card says which it is.
    estimated = next(c for c in done.state.searched(0) if not c.is_scored("search"))
    card = model_card(done, estimated.id, done.recipe(estimated))
    assert "| search estimate | " in card and "| search | " not in card


def test_the_report_draws_intervals_and_shows_estimates_beside_measurements(done):
    page = render_html(done.results, done.recipe)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    drawn = [c["c"] for c in data["candidates"] if "t" in c]
    assert sum(is_estimate for *_, is_estimate in drawn) == 32
    assert "Hollow points are estimates" in page and "Finalists: estimated, and measured" in page
    rows = final_table(done.results)["fidelity"]["finalists"]
    assert [row["candidate"] for row in rows] == done.state.decided["finalists"]
    for row in rows:
        is_measured = done.state.candidates[row["candidate"]].is_scored("search")
        assert (row["measured"] is not None) == is_measured
        assert row["estimated"]["design_error"] > 0.0
        assert "design_error" not in row["validation"]
        assert f"~{row['estimated']['value']:.3f} ±" in page


def test_what_was_spent_is_told(done):
    found = final_table(done.results)["fidelity"]
    on_purpose = [c for c in done.state.searched(0) if c.id in c.sampled.group.full]
    assert [c.ask // 5 for c in on_purpose] == list(range(8))
    assert found["num_documents_full"] == 40 * 40
    assert found["num_documents"] == 8 * 40 + 32 * 12
    assert found["num_estimated"] == 32
    checked = found["calibration"]
    assert checked["num_checked"] == len(on_purpose) == 8
    assert checked["num_covered"] >= 6 and not checked["is_refuted"]
    words = markdown_table(final_table(done.results))
    assert "fidelity: 704 search documents were scored, 44% of the 1,600" in words
    assert "; 704 tokens were run, about 44% of 1,600" in words
    assert "calibration: 8 candidates were scored in full as well, and " in words


def test_errors_that_are_too_small_are_noticed_and_nothing_more_is_foretold(tmp_path, monkeypatch):
    def too_sure(*arguments):
        made = difference_estimate(*arguments)
        return replace(made, value=made.value + 0.1, design_error=0.01 * made.design_error)

    monkeypatch.setattr(assistance, "difference_estimate", too_sure)
    run = work(assisted_run(tmp_path, candidates=40))
    kinds = [{p["kind"] for p in data["predictors"].values()} for data in events(run, "sampled")]
    assert "none" not in kinds[0] and kinds[-1] == {"none"}
    first = kinds.index({"none"})
    assert all(kind == {"none"} for kind in kinds[first:])
    words = markdown_table(final_table(run.results))
    assert ": standard errors are too small" in words
    # Samples that nobody foretells anything of are drawn evenly.
    for group in run.state.phases[0].sets[first:]:
        for chances in group.probabilities.values():
            assert len(set(np.round(chances, 9))) == 1


def test_a_real_search(tmp_path):
    """Real models, in this process: estimates are never shown as measurements."""
    make_workspace(tmp_path)
    search = {"budget": {"candidates": 10}, "finalists": 2, "fidelity": ASSISTED}
    config = make_config(tmp_path, score=SCORE, search=search, workers={"kind": "inline"})
    assert any("fidelity: " in line for line in check(load_config(config), tmp_path).lines)
    result = evomerge.run(config, tmp_path / "run")
    table = final_table(result.results)
    row = next(r for r in table["rows"] if r["candidate"] == table["chosen"])
    chosen = result.results.state.candidates[table["chosen"]]
    found = row["splits"]["search"]["combined"]
    assert ("design_error" in found) == (not chosen.is_scored("search"))
    assert "design_error" not in row["splits"]["validation"]["combined"]
    again = evomerge.resume(tmp_path / "run")
    assert again.results.table() == result.results.table()
    done = run_here("promote", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run/report.html").read_text()
    assert ("~0." in page or "~1." in page) == (not chosen.is_scored("search"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"documents": 3}, "search.fidelity"),
        ({"kind": "guess"}, "search.fidelity"),
        ({"calibrate": 2.0}, "search.fidelity"),
    ],
)
def test_what_is_no_fidelity_is_refused(changes, says, tmp_path):
    make_workspace(tmp_path)
    config = make_config(tmp_path, search={"fidelity": {**ASSISTED, **changes}})
    with pytest.raises(InputError, match=says):
        load_config(config)


def test_the_last_set_too_is_found_again(done, tmp_path):
    """Killed when its candidates were asked, at the budget's end, and had no sample yet."""
    lines = (done.run_dir / "journal.jsonl").read_text().splitlines()
    places = [n for n, line in enumerate(lines) if json.loads(line)["kind"] == "sampled"]
    cut(done, tmp_path / "run", places[-1])
    resumed = work(reopen_run(tmp_path / "run", strict=True))
    assert normal_form(resumed.journal.events) == normal_form(done.journal.events)


OBJECTIVES = {
    "a limit alone": [
        {"task": "toy_choose"},
        {"task": "toy_write", "preference": 0.0, "limit": 0.1},
    ],
    "the worst of two": [
        {"kind": "worst_of", "of": [{"task": "toy_choose"}, {"task": "toy_write"}]}
    ],
    "an expert's": [
        {"kind": "relative_to_expert", "task": "toy_choose", "expert": "expert0"},
        {"task": "toy_write"},
    ],
    "two of one task": [
        {"task": "toy_choose"},
        {"task": "toy_choose", "metric": "brier_score"},
    ],
    "a number of the recipe": [{"task": "toy_choose"}, {"kind": "parameters"}],
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_of_every_kind(name, tmp_path):
    make_workspace(tmp_path)
    search = {"budget": {"candidates": 14}, "finalists": 2}
    search["fidelity"] = {"kind": "assisted", "documents": 16, "calibrate": 0.2}
    score = {**SCORE, "objectives": OBJECTIVES[name]}
    config = make_config(tmp_path, score=score, search=search, workers={"kind": "inline"})
    result = evomerge.run(config, tmp_path / "run")
    state = result.results.state
    estimated = [c for c in state.searched(0) if c.is_searched_by_sample]
    names = {objective.name for objective in result.results.objectives}
    assert all(names <= set(c.scores("search")) for c in estimated)
    for candidate in estimated:
        for score in candidate.scores("search").values():
            assert np.isfinite(score.value) and np.isfinite(score.standard_error)
    assert result.results.table()["chosen"]


@pytest.mark.parametrize(
    ("fidelity", "says", "count"),
    [
        ({"kind": "full"}, None, "a candidate scores 40 documents"),
        (ASSISTED, "fidelity: assisted, 12 of 40 search", "scores about 18 of 40 documents"),
        ({"kind": "assisted"}, "as many documents as tell", "scores about 15 of 40 documents"),
        ({"kind": "race"}, "fidelity: race, few of 40", "scores about 21 of 40 documents"),
        ({"kind": "race", "documents": 8}, "8 of 40 search documents at first", "about 21 of 40"),
    ],
)
def test_check_says_what_it_will_cost(fidelity, says, count, tmp_path):
    make_workspace(tmp_path)
    config = make_config(tmp_path, score=SCORE, search={"fidelity": fidelity})
    lines = check(load_config(config), tmp_path).lines
    assert any(count in line for line in lines)
    assert any(line.startswith("fidelity: ") for line in lines) == (says is not None)
    assert says is None or any(says in line for line in lines)


def test_it_is_no_search_as_finished(tmp_path):
    make_workspace(tmp_path)
    config = make_config(tmp_path, search={"fidelity": ASSISTED, "tell": "as_finished"})
    with pytest.raises(InputError, match=r"search.fidelity: assisted compares candidates in the"):
        check(load_config(config), tmp_path)
