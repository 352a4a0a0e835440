"""lm-eval's own tasks, one of each kind, score as `simple_evaluate` does on the same documents."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import evaluate
import lm_eval.evaluator
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.score import LmEvalScorer, Row, ScoreConfig, TaskSet, mean
from evomerge.score.splits import Splits
from lm_eval_tasks import make_backend
from own_tasks.model import make_model, make_taught_model, make_tokenizer
from own_tasks.table import OWN_DIR, OWN_TASKS, write_data

BATCH_TOKENS = 32_768
SEED = 1234
"""lm-eval's own, of torch's draws."""

LOG_LIKELIHOODS = 3e-6
"""Relative and in nats: batches of other sizes add the same float32 numbers in another order."""

SUMS = 1e-12
"""Relative: float64 sums in another order."""


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def models(tokenizer):
    """By whether they learned to write."""
    return {False: make_model(tokenizer), True: make_taught_model(tokenizer)}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """The tasks' data in the current folder, under the names that lm-eval asks for."""
    folder = tmp_path_factory.mktemp("hub")
    write_data(folder)
    level = logging.getLogger("lm_eval").level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "cache")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        # A second for a list of what is installed, and nothing of a score.
        patch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
        yield folder
    logging.getLogger("lm_eval").setLevel(level)


class Replay(LM):
    """Gives lm-eval the texts that ours drew: only its own engine draws as it does."""

    def __init__(self, scorer: LmEvalScorer) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = defaultdict(list)
        for requests in scorer._requests.values():
            for asked in requests.documents:
                for instance in asked.instances:
                    self.texts[instance.args[0]] += instance.resps

    def generate_until(self, requests) -> list[str]:
        return [self.texts[request.args[0]].pop(0) for request in requests]

    def loglikelihood(self, requests) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests) -> list[float]:
        raise NotImplementedError


def make_config(name: str, engine: str) -> ScoreConfig:
    task = OWN_TASKS[name]
    return ScoreConfig.model_validate(
        {
            "objectives": [
                {"task": name, "metric": metric, "filter": chosen}
                for metric in task.metrics
                for chosen in task.filters
            ],
            "splits": {"search": task.num_scored, "validation": 1, "holdout": 1},
            "include_path": ["."] if task.included else [],
            "num_fewshot": task.num_fewshot,
            "fewshot_by": "block",
            "engine": engine,
        }
    )


@pytest.fixture(scope="module")
def loaded(data):
    """A task's set and splits by name, loaded once for both engines."""
    found: dict[str, tuple[TaskSet, Splits]] = {}

    def load(name: str) -> tuple[TaskSet, Splits]:
        if name not in found:
            tasks = TaskSet(make_config(name, "own"), Path())
            found[name] = tasks, tasks.draw_splits()
        return found[name]

    return load


def lm_evals(name: str, lm: LM, documents: tuple[int, ...]) -> dict[str, Any]:
    task = OWN_TASKS[name]
    folder = "." if task.included else str(OWN_DIR / task.folder)
    found = simple_evaluate(
        lm,
        tasks=[name],
        num_fewshot=task.num_fewshot,
        samples={name: list(documents)},
        task_manager=TaskManager(include_path=[folder], include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    """By task: what lm-eval makes of it with the same model, found once for both engines."""
    return {}


@pytest.mark.parametrize("engine", ["own", "hflm"])
@pytest.mark.parametrize("name", OWN_TASKS)
def test_scores_are_those_of_simple_evaluate(
    name, engine, loaded, expected, models, tokenizer, monkeypatch
):
    task = OWN_TASKS[name]
    model = models[task.lesson is not None]
    monkeypatch.setattr(model.config, "max_position_embeddings", task.max_length)
    tasks, splits = loaded(name)
    backend = make_backend(model, tokenizer, BATCH_TOKENS)
    config = make_config(name, engine)
    scorer = LmEvalScorer(config, tasks, splits, backend, tokenizer, BATCH_TOKENS)
    documents = splits[name]["search"]
    (block,) = tasks.cut_blocks(name, documents)
    torch.manual_seed(SEED)
    rows = scorer.score([block])
    (requests,) = scorer._requests.values()

    if task.draws and engine == "own":
        theirs = lm_evals(name, Replay(scorer), documents)
    elif name in expected:
        theirs = expected[name]
    else:
        # Where nothing is drawn, batches do not matter.
        size = requests.asking._batch_size if task.draws else 1
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, softmax_dtype="float32")
        theirs = expected[name] = lm_evals(name, lm, documents)
    check(name, scorer, rows, theirs)


def check(name: str, scorer: LmEvalScorer, rows: list[Row], theirs: dict[str, Any]) -> None:
    """Every metric by every filter, of all documents together and of each."""
    task = OWN_TASKS[name]
    joint = scorer.tasks.joint_metrics(name)
    results = {
        key: value
        for key, value in theirs["results"][name].items()
        if "," in key and "_stderr," not in key
    }
    assert set(results) == {f"{metric},{f}" for metric in task.metrics for f in task.filters}
    (requests,) = scorer._requests.values()
    samples = defaultdict(list)
    for sample in theirs["samples"][name]:
        samples[sample["filter"]].append(sample)
    for key, value in results.items():
        metric, chosen = key.split(",")
        column = metric if chosen == "none" else f"{metric}/{chosen}"
        tolerance = LOG_LIKELIHOODS if metric in task.continuous else SUMS
        absolute = tolerance
        if metric == "likelihood_diff":
            # A difference of two log-likelihoods is off by what these are off by.
            absolute *= max(abs(x) for row in rows for x in row.log_likelihoods)
        ours = mean([row.metrics[column] for row in rows])
        assert ours.value == pytest.approx(value, rel=tolerance, abs=absolute), key
        assert len(rows) == len(samples[chosen]) == task.num_scored
        for row, asked, sample in zip(rows, requests.documents, samples[chosen], strict=True):
            assert row.document == asked.document_id == sample["doc_id"]
            assert [instance.args for instance in asked.instances] == sample["arguments"]
            if metric not in joint:
                wanted = pytest.approx(float(sample[metric]), rel=tolerance, abs=absolute)
                assert row.metrics[column] == wanted, key
            for instance, answers in zip(asked.instances, sample["resps"], strict=True):
                assert len(instance.resps) == len(answers)
                for our, their in zip(instance.resps, answers, strict=True):
                    check_answer(our, their)
    # Were all documents alike, the comparison would prove little.
    told = [(row.text, *row.metrics.values()) for row in rows]
    assert len(set(told)) > 1


def check_answer(ours: Any, theirs: Any) -> None:
    """A text, a log-likelihood with whether it is greedy, or a log-likelihood."""
    if isinstance(theirs, tuple):
        assert ours[1] == theirs[1]
        ours, theirs = ours[0], theirs[0]
    if isinstance(theirs, str):
        assert ours == theirs
    else:
        assert ours == pytest.approx(theirs, rel=LOG_LIKELIHOODS, abs=LOG_LIKELIHOODS)
