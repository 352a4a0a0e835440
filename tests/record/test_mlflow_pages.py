"""What MLflow's pages say, without a store."""

from __future__ import annotations

from evomerge.choice.table import final_table
from evomerge.record.mlflow_pages import MOST_LETTERS, candidate_note, search_note
from evomerge.record.picks import without_head
from evomerge.record.steps import Steps
from runs import give_scores, new_run, tell


def test_descriptions_are_never_longer_than_a_database_holds(tmp_path):
    run = new_run(tmp_path)
    candidate = run.add_asked(0, (0.5, 0.5))
    give_scores(run, candidate, 0.5)
    tell(run, candidate)
    note = candidate_note(run.results, candidate, "x: " + "long " * 10_000)
    assert len(note) <= MOST_LETTERS and note.endswith("# and so on\n```")
    assert note.startswith("A candidate of the search.")
    assert "| toy_choose, acc ↑ (share) | 0.500 ±" in note
    assert "```" not in candidate_note(run.results, candidate, None)
    note = search_note(run.results, final_table(run.results), "1", {})
    assert note.startswith("**no model is chosen yet**")
    assert "Which merge of base, expert0, expert1 is best by toy_choose (acc ↑ (share))" in note
    run.close()


def test_the_best_so_far_is_followed(tmp_path):
    run = new_run(tmp_path)
    steps = Steps(run.results, num_actors=2)
    found = []
    for ask, value in enumerate((0.5, 0.25, 0.75)):
        candidate = run.add_asked(ask, (0.1 * ask, 0.5))
        give_scores(run, candidate, value)
        steps.worked({"build_s": 1.0, "score_s": 0.5})
        tell(run, candidate)
        metrics = {m.key: m for m in steps.told(candidate, 100.0 + ask)}
        found.append(metrics["progress/best"].value)
        assert metrics["progress/best"].step == ask + 1
        # Three seconds of two actors' time in each second of the search.
        share = metrics["progress/share_of_actors_busy"].value
        assert share == min(1.0, 1.5 * (ask + 1) / 1.0 / 2)
        assert metrics["progress/candidates_per_hour"].value > 0.0
    assert found == [0.5, 0.5, 0.75]
    run.close()


def test_a_card_loses_its_head():
    assert without_head("---\nlicense: x\n---\n# toy\n\ntext\n") == "# toy\n\ntext\n"
    assert without_head("# toy\n") == "# toy\n"
    assert without_head("---\nnever closed") == "---\nnever closed"
