"""Tasks of every kind, scored by us and by lm-eval itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from evomerge.backends import HuggingFaceBackend
from evomerge.backends.fit import find_batching
from evomerge.score import LmEvalScorer, ScoreConfig, TaskSet, cut_blocks, mean
from fixtures import make_tokenizer

BATCH_TOKENS = 200
ENGINE = "own"
GREEDY = {"until": ["\n"], "max_gen_toks": 2, "do_sample": False}
MEAN = {"aggregation": "mean", "higher_is_better": True}
REGEX = {"function": "regex", "regex_pattern": "([a-h])"}
FIRST = {"function": "take_first"}
WRITE = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "write.jsonl"}},
    "test_split": "test",
    "target_delimiter": "",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
}
CHOOSE = {
    **WRITE,
    "dataset_kwargs": {"data_files": {"test": "choose.jsonl"}},
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "label",
}
MORE_TASKS = {
    # Mutual information asks for each choice without its question as well.
    "toy_information": {
        **CHOOSE,
        "metric_list": [{"metric": m, **MEAN} for m in ("acc", "acc_norm", "acc_mutual_info")],
    },
    "toy_counts": {**CHOOSE, "metric_list": [{"metric": "acc", **MEAN}, {"metric": "brier_score"}]},
    "toy_likely": {
        **WRITE,
        "output_type": "loglikelihood",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", **MEAN},
        ],
    },
    "toy_rolling": {
        **WRITE,
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "toy_filters": {
        **WRITE,
        "output_type": "generate_until",
        "generation_kwargs": GREEDY,
        "filter_list": [
            {"name": "strict", "filter": [FIRST]},
            {"name": "letter", "filter": [REGEX, FIRST]},
        ],
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "toy_repeats": {
        **WRITE,
        "output_type": "generate_until",
        "repeats": 3,
        "generation_kwargs": {**GREEDY, "do_sample": True, "temperature": 1.0},
        "filter_list": [
            {"name": "vote", "filter": [REGEX, {"function": "majority_vote"}, FIRST]},
            {"name": "once", "filter": [FIRST]},
        ],
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
}


def write_task(folder: Path, task: dict, code: str = "") -> None:
    """Write a task `toy`; a value "!function NAME" is a function of the code."""
    text = yaml.safe_dump({"task": "toy", **task})
    (folder / "toy.yaml").write_text(re.sub(r"'!function (\w+)'", r"!function tricks.\1", text))
    (folder / "tricks.py").write_text(code)


def make_score_config(tasks_dir: Path, *objectives: dict, **changes) -> ScoreConfig:
    values = {
        "objectives": list(objectives),
        "splits": {"search": 12, "validation": 8, "holdout": 8},
        "include_path": [str(tasks_dir)],
        "allow_code": [str(tasks_dir)],
        "engine": ENGINE,
    }
    return ScoreConfig.model_validate(values | changes)


def make_backend(model, tokenizer, batch_tokens: int = BATCH_TOKENS) -> HuggingFaceBackend:
    batching = find_batching(model.config, 4, batch_tokens, is_on_gpu=False)
    return HuggingFaceBackend(model, tokenizer, batching)


def make_scorer(config: ScoreConfig, model, batch_tokens: int = BATCH_TOKENS) -> LmEvalScorer:
    tasks = TaskSet(config, Path())
    tokenizer = make_tokenizer()
    backend = make_backend(model, tokenizer, batch_tokens)
    return LmEvalScorer(config, tasks, tasks.draw_splits(), backend, tokenizer, batch_tokens)


def search_documents(scorer: LmEvalScorer) -> dict[str, tuple[int, ...]]:
    splits = scorer.tasks.draw_splits()
    return {task: by_split["search"] for task, by_split in splits.items()}


def score(scorer: LmEvalScorer, block_documents: int = 1000):
    rows = []
    for task, documents in search_documents(scorer).items():
        rows += scorer.score(cut_blocks(task, documents, block_documents))
    return rows


def reference(config: ScoreConfig, model, batch_size: int = 1):
    """`lm_eval.evaluate` on the same documents, with tasks of its own."""
    tasks = TaskSet(config, Path())
    splits = tasks.draw_splits()
    tasks.reserve_examples(splits)
    for task in tasks.tasks.values():
        task.set_fewshot_seed(config.fewshot_seed)
    lm = HFLM(
        pretrained=model,
        tokenizer=make_tokenizer(),
        batch_size=batch_size,
        softmax_dtype="float32",
    )
    # In processes that are forked beside threads of other tests it can wait for ever.
    with patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"}):
        return evaluate(
            lm,
            {"tasks": tasks.tasks, "groups": {}, "group_map": {}},
            samples={task: list(by_split["search"]) for task, by_split in splits.items()},
            # No mean of ours is bootstrapped; lm-eval divides by zero with one round of perplexity.
            bootstrap_iters=2,
        )


def close(ours: float, theirs: float) -> bool:
    """Within what the same model differs by between batch sizes in float32."""
    return abs(ours - theirs) <= max(1e-4, 1e-6 * abs(theirs))


def check_equal(scorer: LmEvalScorer, rows, expected) -> None:
    """Each objective's rows against lm-eval's samples and aggregates."""
    for objective in scorer.tasks.objectives:
        ours = [row for row in rows if row.task == objective.task]
        samples = expected["samples"][objective.task]
        theirs = [sample for sample in samples if sample["filter"] == objective.filter]
        assert len(ours) == len(theirs) == 12
        assert [row.document for row in ours] == [sample["doc_id"] for sample in theirs]
        for row, sample in zip(ours, theirs, strict=True):
            assert row.metrics[objective.column] == float(sample[objective.metric])
            answers = [responses[0] for responses in sample["resps"]]
            if isinstance(answers[0], str):
                assert row.text == answers[0]
            else:
                assert len(row.log_likelihoods) == len(answers)
                for value, answer in zip(row.log_likelihoods, answers, strict=True):
                    assert close(value, answer[0])
        estimate = mean([row.metrics[objective.column] for row in ours])
        results = expected["results"][objective.task]
        suffix = f",{objective.filter}"
        assert estimate.value == pytest.approx(results[objective.metric + suffix], abs=1e-12)
        assert estimate.standard_error == pytest.approx(
            results[f"{objective.metric}_stderr{suffix}"], abs=1e-12
        )
