"""Damaged journals and lost documents: nothing is dropped in silence, and the run goes on."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from commands import run_here
from evomerge.errors import InputError
from evomerge.journal import Event, Journal, normal_form, read_journal, replay
from evomerge.search.mend import note_lost_documents, repair
from evomerge.search.run import reopen_run, start_run
from evomerge.search.scoring import Scoring
from evomerge.search.setup import Setup
from evomerge.search.stages import Stages
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from runs import new_run


def go_on(run):
    """All stages that are left, scored by simulated workers."""
    worker = SimulatedWorker(run.setup.tasks.measures)
    note_lost_documents(run)
    with Scoring(run, print, lambda _config, _spec: SimulatedGroup(worker)) as scoring:
        for stage in Stages(run, scoring, lambda progress: None):
            stage.go()
    run.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mend")
    search = {"budget": {"candidates": 5}, "finalists": 2, "explain": True}
    run = new_run(folder, search=search)
    go_on(run)
    return run.run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    for name in ("pool", "tasks"):
        (tmp_path / name).symlink_to(finished.parent / name)
    return shutil.copytree(finished, tmp_path / "run")


def lines_of(run_dir):
    return (run_dir / "journal.jsonl").read_bytes().splitlines(keepends=True)


def write(run_dir, lines):
    (run_dir / "journal.jsonl").write_bytes(b"".join(lines))


def find(run_dir, kind, **data):
    """Index of the first line of a kind with these data."""
    events, _ = read_journal(run_dir / "journal.jsonl")
    return next(e.seq for e in events if e.kind == kind and data.items() <= e.data.items())


def damage(run_dir, *indices):
    lines = lines_of(run_dir)
    for index in indices:
        lines[index] = lines[index].replace(b'"seq"', b'"sex"')
    write(run_dir, lines)


def test_a_whole_journal_is_left_alone(run_dir):
    before = (run_dir / "journal.jsonl").read_bytes()
    done = run_here("repair", run_dir, cwd=run_dir.parent)
    assert done.stdout == f"{run_dir}: the journal is whole; nothing is changed\n"
    assert (run_dir / "journal.jsonl").read_bytes() == before


def test_any_line_can_be_lost(finished, run_dir):
    """Whichever it is, the run goes on to its end, and every candidate has the same scores."""
    whole = replay(finished)
    original = lines_of(run_dir)
    chosen = whole.decided["chosen"]
    for index in (*random.Random(0).sample(range(len(original)), 12), len(original) - 1):
        write(run_dir, original)
        damage(run_dir, index)
        with pytest.raises(InputError, match=f"line {index + 1} is damaged"):
            reopen_run(run_dir)
        found = repair(run_dir)
        assert found.damaged == (index + 1,)
        assert found.kept.read_bytes() != (run_dir / "journal.jsonl").read_bytes()
        for number, line in enumerate(lines_of(run_dir), 1):
            if number not in {index + 1, *found.unfit}:
                assert line == original[number - 1]
        go_on(reopen_run(run_dir))
        state = replay(run_dir)
        assert state.stages["report"] == "ended" and state.decided["chosen"] == chosen
        for candidate in state.candidates.values():
            if candidate.id in found.forgotten:
                continue
            for split in whole.candidates[candidate.id].measured:
                assert candidate.scores(split) == whole.candidates[candidate.id].scores(split)


def test_two_lines_that_a_damaged_newline_joins_are_both_kept(run_dir):
    before = read_journal(run_dir / "journal.jsonl")[0]
    write(
        run_dir, [*lines_of(run_dir)[:-2], b"#".join(lines_of(run_dir)[-2:]).replace(b"\n#", b"#")]
    )
    assert b"\n" not in lines_of(run_dir)[-1][:-1]
    with pytest.raises(InputError, match="is damaged"):
        Journal(run_dir / "journal.jsonl")
    repair(run_dir)
    assert read_journal(run_dir / "journal.jsonl")[0] == before


@pytest.mark.parametrize("kind", ["enqueued", "decided"])
def test_what_says_something_of_another_goes_on_to_do_so(kind, finished, run_dir):
    whole = replay(finished)
    explained = {"what": "explained"}
    data = {"candidate": "ablation-0001"} if kind == "enqueued" else explained
    damage(run_dir, find(run_dir, kind, **data))
    repair(run_dir)
    go_on(reopen_run(run_dir))
    state = replay(run_dir)
    assert state.candidates["ablation-0001"].origin == "ablation"
    assert state.decided["explained"] == whole.decided["explained"]
    assert state.holdout_opened == whole.holdout_opened


def test_what_is_said(run_dir):
    (run_dir / "recipes/c00002.yaml").unlink()
    asked = find(run_dir, "asked", candidate="c00002")
    damage(run_dir, asked, find(run_dir, "result", candidate="c00000"))
    done = run_here("repair", run_dir, cwd=run_dir.parent)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("the damaged file is kept as journal.jsonl.damaged")
    assert lines[1].startswith("damaged: line ") and str(asked + 1) in lines[1]
    assert "(result)" in lines[2] and "(told)" in lines[2]
    assert "lost with their scores: c00002" in lines
    assert "scored again on search: c00000" in lines
    assert lines[-1] == f"`evomerge resume {run_dir}` goes on with it"
    # Once more: another name for the damaged file.
    damage(run_dir, 3)
    assert repair(run_dir).kept.name == "journal.jsonl.damaged-2"


def test_the_first_line_is_made_again(run_dir):
    before = replay(run_dir).started
    damage(run_dir, 0)
    assert repair(run_dir).damaged == (1,)
    assert replay(run_dir).started == before


def test_a_lost_opening_of_the_holdout_is_not_forgotten(run_dir):
    opened = replay(run_dir).holdout_opened
    damage(run_dir, find(run_dir, "holdout_opened"))
    repair(run_dir)
    assert sorted(replay(run_dir).holdout_opened) == sorted(opened)


def test_a_line_that_does_not_fit_is_refused_by_its_number(run_dir):
    lines = lines_of(run_dir)
    for kind, data in (
        ("told", {"candidate": "c00000"}),
        ("told", {"candidate": ["c00000"], "elapsed_s": 1.0}),
        ("result", {"candidate": "nobody"}),
        ("lost", {"results": [{"candidate": "base", "split": "none", "part": "x"}]}),
    ):
        write(run_dir, [*lines, Event(len(lines), 1.0, kind, data).to_line().encode()])
        with pytest.raises(InputError, match=rf"line {len(lines) + 1} \({kind}\) does not fit"):
            replay(run_dir)
        assert repair(run_dir).unfit == {len(lines) + 1: kind}
        assert replay(run_dir).stages["report"] == "ended"


def test_nothing_that_can_be_read_is_refused(run_dir):
    (run_dir / "journal.jsonl").write_text("x\n" * 9)
    with pytest.raises(InputError, match="no line can be read"):
        repair(run_dir)
    assert (run_dir / "journal.jsonl").read_text() == "x\n" * 9


@pytest.mark.parametrize("leave", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_documents_without_a_journal_are_no_new_run(run_dir, leave):
    setup: Setup = _setup_of(run_dir)
    leave(run_dir / "journal.jsonl")
    for command in ("resume", "repair"):
        done = run_here(command, run_dir, cwd=run_dir.parent)
        assert done.returncode == 2
        assert "restore" in done.stderr
    if not (run_dir / "journal.jsonl").exists():
        with pytest.raises(InputError, match="has the documents of a run"):
            start_run(setup, run_dir)


def _setup_of(run_dir):
    run = reopen_run(run_dir)
    run.close()
    return run.setup


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")]
)
def test_candidates_whose_documents_are_gone_are_scored_again(run_dir, caplog, change):
    before = read_journal(run_dir / "journal.jsonl")[0]
    parts = sorted((run_dir / "documents").iterdir())
    owners = {e.data["candidate"] for e in before if e.data.get("part") == parts[4].name}
    change(parts[4])
    go_on(reopen_run(run_dir))
    assert f"scored again: {', '.join(owners)}" in caplog.text
    after = read_journal(run_dir / "journal.jsonl")[0]
    assert normal_form(after) == normal_form(before)
    lost = [event.data for event in after if event.kind == "lost"]
    assert {entry["candidate"] for data in lost for entry in data["results"]} == owners
    assert json.loads(lines_of(run_dir)[len(before)])["schema_version"] == 2
    # They are there now.
    go_on(reopen_run(run_dir))
    assert len(read_journal(run_dir / "journal.jsonl")[0]) == len(after)
