"""Signs of a sick evaluation: flagged by document, told of in words, refused where asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import evomerge
from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.record.report import markdown_table
from evomerge.score import Answers, TaskSet, cut_blocks
from evomerge.score.health import repeats_itself
from evomerge.score.language import is_in_language
from evomerge.search.check import check
from fixtures import make_config, make_workspace
from lm_eval_tasks import make_score_config, make_scorer

INLINE = {"kind": "inline"}


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("The answer is four. " * 8, True),
        ("ab" * 50, True),
        ("答えは四です。" * 12, True),
        ("yes yes yes", False),
        (
            "First we add the eggs that she sells to those that she eats, which makes seven; "
            "sixteen less seven is nine, and nine times two dollars is eighteen dollars.",
            False,
        ),
    ],
)
def test_what_repeats_itself(text, does):
    assert repeats_itself(text) is does


def flags_of(scorer, task: str, answers: list[str], num_cut: list[int] | None = None, right=None):
    """Rows of a task's first documents, whose answers are given, and which is right."""
    documents = scorer.tasks.draw_splits()[task]["search"][: len(answers)]
    (block,) = cut_blocks(task, documents, 100)
    scorer.answer(block)
    for asked in scorer._requests[block].documents:
        asked.document["answer"] = right or asked.document["answer"]
    given = Answers([[answer] for answer in answers], [2] * len(answers), num_cut)
    return scorer.rows(block, given)


def test_answers_are_flagged_document_by_document(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_filters", "filter": "letter"})
    scorer = make_scorer(config, model)
    answers = ["b", "", "> >", "abab" * 30, "a"]
    rows = flags_of(scorer, "toy_filters", answers, [0, 0, 0, 0, 1])
    assert [row.flags for row in rows] == [
        [],
        ["empty", "unparsed"],
        ["unparsed"],
        ["repetitive"],
        ["answer_cut"],
    ]


def test_an_answer_in_another_language_has_the_worst_value(tasks_dir, model):
    metric = {"task": "toy_write", "metric": "exact_match"}
    config = make_score_config(
        tasks_dir, metric, {**metric, "answer_language": "ja", "name": "japanese"}
    )
    scorer = make_scorer(config, model)
    names = [measure.name for measure in scorer.tasks.measures]
    assert names == ["toy_write/exact_match/none", "japanese"]
    texts = ["答えは四です", "the answer is four", "4"]
    rows = flags_of(scorer, "toy_write", texts, right=texts[0])
    assert [row.metrics for row in rows] == [
        {"exact_match": 1.0, "exact_match@ja": 1.0},
        {"exact_match": 0.0, "exact_match@ja": 0.0},
        {"exact_match": 0.0, "exact_match@ja": 0.0},
    ]
    assert [row.flags for row in rows] == [[], ["other_language"], ["other_language"]]
    (row,) = flags_of(scorer, "toy_write", texts[1:2], right=texts[1])
    assert row.metrics == {"exact_match": 1.0, "exact_match@ja": 0.0}


def test_most_of_several_answers_say_the_language():
    assert is_in_language(["答えは四です", "答えは五です", "it is four"], "ja")
    assert not is_in_language(["答えは四です", "it is four"], "ja")
    assert not is_in_language(["18"], "en")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"task": "toy_write", "answer_language": "japanese"}, "no language 'japanese'"),
        ({"task": "toy_choose", "answer_language": "ja"}, "its answers are not generated"),
    ],
)
def test_languages_that_nobody_could_tell(entry, says, tasks_dir):
    with pytest.raises(InputError, match=says):
        TaskSet(make_score_config(tasks_dir, entry), Path())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("health")
    make_workspace(folder)
    return folder


@pytest.fixture(scope="module")
def sick(folder):
    """Answers of at most two tokens, in no language; choices that nobody can tell apart."""
    tasks_dir = folder / "tasks"
    task = yaml.safe_load((tasks_dir / "toy_choose.yaml").read_text())
    rows = [json.loads(line) for line in (tasks_dir / "choose.jsonl").read_text().splitlines()]
    for row in rows:
        row["question"] = "abcdefgh" * 9 + row["question"]
    (tasks_dir / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task |= {"task": "toy_long", "dataset_kwargs": {"data_files": {"test": "long.jsonl"}}}
    (tasks_dir / "toy_long.yaml").write_text(yaml.safe_dump(task))
    objectives = [{"task": "toy_write", "answer_language": "ja"}, {"task": "toy_long"}]
    config = make_config(folder, score={"objectives": objectives}, workers=INLINE)
    return config, evomerge.run(config, folder / "sick")


def test_it_is_told_of_in_words(sick, folder):
    config, result = sick
    told = "\n".join(check(load_config(config), folder).lines)
    assert "prompts cut: 40 documents of task 'toy_long' are longer than the models read" in told
    assert "prompts: plain text; the base's tokenizer has no chat template" in told
    words = markdown_table(final_table(result.results))
    assert "prompts: plain text; the base's tokenizer has no chat template" in words
    assert "health, toy_write: answers were cut off by the limit of tokens: " in words
    assert "health, toy_write: answers were not in the language asked for: " in words
    assert "health, toy_long: prompts were longer than the model reads: " in words
    assert " base 100%, " in words and "(of 10 validation documents)" in words
    assert "health, toy_write: every model cannot be told from zero on validation doc" in words
    assert "health, toy_long: " in words and "cannot be told from chance (0.333)" in words
    page = (folder / "sick/report.html").read_text()
    assert "Health of the evaluation" in page and "answers were cut off by the limit" in page
    summary = json.loads((folder / "sick/summary.json").read_text())
    assert {entry["sign"] for entry in summary["health"]} >= {"truncated", "other_language"}


def test_a_healthy_evaluation_says_nothing(folder):
    config = make_config(folder, score={"objectives": [{"task": "toy_choose"}]}, workers=INLINE)
    result = evomerge.run(config, folder / "healthy")
    assert "health" not in final_table(result.results)


def test_a_limit_stops_the_search_before_it_begins(folder):
    changes = {"objectives": [{"task": "toy_write"}], "health": {"truncated": 0.1}}
    config = make_config(folder, score=changes, workers=INLINE)
    says = (
        r"score.health.truncated is 0.1, .* 'toy_write' is over it: answers were cut off .*: base "
    )
    run_dir = folder / "limited"
    with pytest.raises(InputError, match=says) as caught:
        evomerge.run(config, run_dir)
    assert f"evomerge resume {run_dir} --set score.health.truncated=1" in str(caught.value)
    journal = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    assert not any(event["kind"] == "asked" for event in journal)
    result = evomerge.resume(run_dir, overrides=["score.health.truncated=1"])
    assert result.results.table()["chosen"] is not None
