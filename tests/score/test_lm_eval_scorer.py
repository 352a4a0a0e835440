"""Scores are lm-eval's own: document by document, and in the mean with its standard error."""

from __future__ import annotations

import re

import pytest
import torch

import lm_eval_tasks
from evomerge.errors import CandidateError
from evomerge.score import cut_blocks, mean, moments_of
from fixtures import make_tasks
from lm_eval_tasks import (
    FIRST,
    MORE_TASKS,
    check_equal,
    make_score_config,
    make_scorer,
    reference,
    score,
    search_documents,
    write_task,
)


@pytest.fixture(params=["own", "hflm"], autouse=True)
def engine(request, monkeypatch) -> None:
    monkeypatch.setattr(lm_eval_tasks, "ENGINE", request.param)


def test_choices_and_generations_are_lm_evals(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    # The comparison would prove nothing if every document scored the same.
    for objective in scorer.tasks.objectives:
        values = {row.metrics[objective.metric] for row in rows if row.task == objective.task}
        assert values == {0.0, 1.0}
    assert len({row.text for row in rows}) > 4
    assert all(row.num_tokens > 0 for row in rows)


def test_scoring_prints_nothing(tasks_dir, model, capfd):
    entries = [{"task": name} for name in ("toy_choose", "toy_write")]
    scorer = make_scorer(make_score_config(tasks_dir, *entries, num_fewshot=1), model)
    capfd.readouterr()
    score(scorer)
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_several_metrics_and_empty_contexts_are_lm_evals(tasks_dir, model):
    names = ("acc", "acc_norm", "acc_mutual_info")
    entries = [{"task": "toy_information", "metric": name} for name in names]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    assert [o.name for o in scorer.tasks.objectives] == [f"toy_information/{n}" for n in names]
    check_equal(scorer, score(scorer), reference(config, model))


def test_a_log_likelihood_task_is_lm_evals(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_likely", "metric": "acc"})
    scorer = make_scorer(config, model)
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    assert all(len(row.log_likelihoods) == 1 for row in rows)


def test_several_filters_are_lm_evals(tasks_dir, model):
    entries = [{"task": "toy_filters", "filter": name} for name in ("strict", "letter")]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    assert len({o.name for o in scorer.tasks.objectives}) == 2
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    assert any(r.metrics["exact_match/strict"] != r.metrics["exact_match/letter"] for r in rows)
    moments = moments_of(rows, scorer.tasks.objectives)
    assert len({count_mean[:2] for count_mean in moments.values()}) == 2


def test_the_first_filter_is_the_default(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_filters"})
    scorer = make_scorer(config, model)
    assert scorer.tasks.objectives[0].filter == "strict"
    check_equal(scorer, score(scorer), reference(config, model))


def test_repeats_are_lm_evals(tasks_dir, model, monkeypatch):
    # Only lm-eval's own engine draws as lm-eval does.
    monkeypatch.setattr(lm_eval_tasks, "ENGINE", "hflm")
    entries = [{"task": "toy_repeats", "filter": name} for name in ("vote", "once")]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    score(scorer)
    (requests,) = scorer._requests.values()
    # Sampling draws alike where seed and batches are alike.
    torch.manual_seed(3)
    rows = score(scorer)
    torch.manual_seed(3)
    expected = reference(config, model, requests.asking._batch_size)
    assert {len(sample["resps"][0]) for sample in expected["samples"]["toy_repeats"]} == {3}
    check_equal(scorer, rows, expected)


def test_a_document_draws_by_itself(tasks_dir, model, monkeypatch):
    monkeypatch.setattr(lm_eval_tasks, "ENGINE", "own")
    entries = [{"task": "toy_repeats", "filter": name} for name in ("vote", "once")]
    scorer = make_scorer(make_score_config(tasks_dir, *entries), model)
    documents = search_documents(scorer)["toy_repeats"]
    (block,) = cut_blocks("toy_repeats", documents, 12)
    answers = scorer.answer(block).responses
    assert all(len(texts) == 3 for texts in answers)
    assert any(len(set(texts)) > 1 for texts in answers)
    torch.manual_seed(3)
    one_by_one = [scorer.answer(b).responses[0] for b in cut_blocks("toy_repeats", documents, 1)]
    assert one_by_one == answers
    other = make_scorer(make_score_config(tasks_dir, *entries, fewshot_seed=7), model)
    assert other.answer(block).responses != answers


@pytest.mark.parametrize("tasks", [("toy_choose",), ("toy_write",), ("toy_choose", "toy_write")])
def test_examples_in_prompts_are_lm_evals(tasks, tasks_dir, model):
    config = make_score_config(tasks_dir, *({"task": name} for name in tasks), num_fewshot=2)
    scorer = make_scorer(config, model)
    check_equal(scorer, score(scorer), reference(config, model))


@pytest.mark.parametrize("by", ["document", "block"])
def test_examples_come_from_no_split_and_depend_on_no_order(by, tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_write"}, num_fewshot=2, fewshot_by=by)
    scorer = make_scorer(config, model)
    splits = scorer.tasks.draw_splits()["toy_write"]
    documents = scorer.tasks.documents["toy_write"]
    used = {documents[index]["question"] for indices in splits.values() for index in indices}
    assert len(used) == 28

    def prompts(order: int, size: int = 5) -> dict[int, str]:
        fresh = make_scorer(config, model)
        blocks = cut_blocks("toy_write", splits["search"], size)
        for block in blocks[::order]:
            fresh.score([block])
        return {
            document: instances[0].args[0]
            for block in blocks
            for document, _, instances in fresh._requests[block].documents
        }

    forward = prompts(1)
    assert len(forward) == 12
    for document, prompt in forward.items():
        *examples, asked = re.findall(r"[a-h]{5}>", prompt)
        assert asked == documents[document]["question"]
        assert len(set(examples)) == 2
        assert not set(examples) & used
    assert len({tuple(re.findall(r"[a-h]{5}>", p)[:2]) for p in forward.values()}) > 1
    assert prompts(-1) == forward
    assert (prompts(1, 4) == forward) == (by == "document")


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("toy_likely", "perplexity"),
        ("toy_rolling", "word_perplexity"),
        ("toy_counts", "brier_score"),
    ],
)
def test_metrics_of_all_documents_together_are_lm_evals(task, metric, tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": task, "metric": metric}, block_documents=5)
    scorer = make_scorer(config, model)
    documents = search_documents(scorer)[task]
    (block,) = scorer.tasks.cut_blocks(task, documents)
    estimate = mean([row.metrics[metric] for row in scorer.score([block])])
    results = reference(config, model)["results"][task]
    assert estimate.value == pytest.approx(results[f"{metric},none"], rel=1e-5)
    assert estimate.standard_error > 0
    assert estimate.num_documents == 12


TRICKS = """
import json

def decode(answers, documents):
    return [json.loads(answer[0]) for answer in answers]

def all_answers(document, answers):
    return {"overlap": 0}

def some_answers(document, answers):
    some_answers.calls = getattr(some_answers, "calls", 0) + 1
    return {"overlap": 1} if some_answers.calls == 1 else {}

def no_answers(document, answers):
    return {"overlap": document["reply"]}

def gather(items):
    if not any(items):
        raise ZeroDivisionError("no answer is right")
    return 1.0
"""


@pytest.mark.parametrize(
    ("process", "filter_name", "says"),
    [
        (
            "all_answers",
            "none",
            "metric 'overlap' cannot be aggregated: ZeroDivisionError: no answ",
        ),
        ("some_answers", "none", "metric 'overlap' needs all documents .* gives it 1 of 12"),
        ("no_answers", "none", "document [0-9]+ has no score: KeyError: 'reply'"),
        ("all_answers", "json", "filter 'json' fails: JSONDecodeError: Expecting value"),
    ],
)
def test_a_candidate_that_a_task_fails_on_says_where(process, filter_name, says, tmp_path, model):
    folder = make_tasks(tmp_path)
    decode = {"function": "custom", "filter_fn": "!function decode"}
    metric = {"metric": "overlap", "aggregation": "!function gather", "higher_is_better": True}
    task = MORE_TASKS["toy_filters"] | {
        "filter_list": [{"name": "none", "filter": [FIRST]}, {"name": "json", "filter": [decode]}],
        "process_results": f"!function {process}",
        "metric_list": [metric],
    }
    write_task(folder, task, TRICKS)
    scorer = make_scorer(make_score_config(folder, {"task": "toy", "filter": filter_name}), model)
    with pytest.raises(CandidateError, match=f"task 'toy': {says}"):
        score(scorer)
