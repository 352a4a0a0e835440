"""Tasks that no model could be scored on are refused before there is one; others never are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fixtures import make_tasks, make_tokenizer
from lm_eval_tasks import FIRST, GREEDY, MEAN, MORE_TASKS, REGEX, WRITE, make_score_config

from evomerge.errors import InputError
from evomerge.score import TaskSet
from evomerge.score.trial import chat_of, try_tasks

GENERATE = {
    **WRITE,
    "output_type": "generate_until",
    "generation_kwargs": GREEDY,
    "metric_list": [{"metric": "exact_match", **MEAN}],
}


def write_task(folder: Path, task: dict, code: str = "") -> None:
    """A task `toy`; "!function NAME" stands for a function of `code`."""
    text = yaml.safe_dump({"task": "toy", **task})
    for name in ("trick", "gather"):
        text = text.replace(f"'!function {name}'", f"!function tricks.{name}")
    (folder / "toy.yaml").write_text(text)
    (folder / "tricks.py").write_text(code)


def attempt(folder: Path, chat=None, **entry) -> None:
    config = make_score_config(folder, {"task": "toy", **entry})
    tasks = TaskSet(config, Path())
    splits = tasks.draw_splits()
    tasks.reserve_examples(splits)
    try_tasks(tasks, splits, chat)


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_tasks(tmp_path / "tasks")


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        (
            {"process_results": "!function trick"},
            "import a_package_that_nobody_has\n",
            "'toy' cannot be loaded: ModuleNotFoundError: No module named 'a_package",
        ),
        (
            {"process_docs": "!function trick"},
            "def trick(dataset):\n    raise OSError('no such host')\n",
            "'toy' cannot be loaded: OSError: no such host",
        ),
        ({"process_docs": "!function trick"}, "", "cannot be loaded: AttributeError"),
        ({"metric_list": []}, "", "has no metric ''; valid: none"),
        ({"filter_list": []}, "", "has no filter ''; valid: none"),
        (
            {"metric_list": [{"metric": "exact_match", **MEAN, "aggregation": "average"}]},
            "",
            "'exact_match' has an aggregation that lm-eval does not know; valid: a !function, bits",
        ),
        (
            {"metric_list": [{"metric": "exact_match", **MEAN, "higher_is_better": "no"}]},
            "",
            "'exact_match' has higher_is_better 'no'; valid: true, false",
        ),
        (
            {"doc_to_text": "{{question}}{{ 1 // (answer | length) }}"},
            "",
            "'toy': its prompts cannot be made: ZeroDivisionError",
        ),
        (
            {
                "repeats": 2,
                "filter_list": [{"name": "k", "filter": [{"function": "take_first_k"}]}],
            },
            "",
            "'toy': filter 'k' fails: KeyError: 'k'",
        ),
        (
            {
                "repeats": 2,
                "filter_list": [
                    {"name": "k", "filter": [{"function": "take_first_k", "k": 3}, FIRST]}
                ],
            },
            "",
            "'toy': filter 'k' fails: AssertionError: Need at least 3 responses",
        ),
        (
            {"filter_list": [{"name": "x", "filter": [{**REGEX, "regex_pattern": "("}, FIRST]}]},
            "",
            "'toy': filter 'x' fails: (PatternE|e)rror: missing",
        ),
    ],
)
def test_a_fault_of_the_configuration_is_one_message(changes, code, says, folder):
    write_task(folder, GENERATE | changes, code)
    if "1 //" in changes.get("doc_to_text", ""):
        # The last document: lm-eval tries the first one itself.
        lines = (folder / "write.jsonl").read_text().splitlines()
        lines[-1] = '{"question": "abcde>", "answer": ""}'
        (folder / "write.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=says):
        attempt(folder)


def test_a_chat_template_that_raises_is_one_message(folder):
    write_task(folder, GENERATE)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no chats') }}"
    with pytest.raises(InputError, match="'toy': its prompts cannot be made: TemplateError: no ch"):
        attempt(folder, chat_of(tokenizer))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    attempt(folder, chat_of(tokenizer))


@pytest.mark.parametrize("name", MORE_TASKS)
def test_tasks_that_work_pass(name, folder):
    write_task(folder, MORE_TASKS[name])
    directions = [entry["metric"] for entry in MORE_TASKS[name]["metric_list"]]
    filters = [entry["name"] for entry in MORE_TASKS[name].get("filter_list", [{"name": "none"}])]
    for metric in directions:
        for chosen in filters:
            attempt(folder, metric=metric, filter=chosen)


def test_a_filter_of_the_tasks_own_may_want_certain_texts(folder):
    code = "import json\ndef trick(answers, _):\n    return [json.loads(a[0]) for a in answers]\n"
    custom = {"function": "custom", "filter_fn": "!function trick"}
    write_task(folder, {**GENERATE, "filter_list": [{"name": "json", "filter": [custom]}]}, code)
    attempt(folder)
