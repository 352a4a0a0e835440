"""Tasks that no model could be scored on are refused before there is one; others never are."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import InputError
from evomerge.score import TaskSet
from evomerge.score.chat import PLAIN, chat_of
from evomerge.score.trial import try_tasks
from fixtures import make_tasks, make_tokenizer
from lm_eval_tasks import (
    CHOOSE,
    FIRST,
    GREEDY,
    MEAN,
    MORE_TASKS,
    REGEX,
    WRITE,
    make_score_config,
    write_task,
)

GENERATE = {
    **WRITE,
    "output_type": "generate_until",
    "generation_kwargs": GREEDY,
    "metric_list": [{"metric": "exact_match", **MEAN}],
}

UP = {"higher_is_better": True}
PAIRS = "def trick(document, answers):\n    return {'overlap': (document['answer'], answers[0])}\n"
MACRO = """
def gather(items):
    from sklearn.metrics import f1_score

    golds, guesses = zip(*items)
    return f1_score(golds, guesses, average="macro")
"""


def attempt(folder: Path, chat=PLAIN, **entry) -> None:
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
    config = make_score_config(folder, {"task": "toy"}, apply_chat_template=True)
    texts = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.chat_template = (
        "{% if '>' in messages[0]['content'] %}{{ raise_exception('no chats') }}{% endif %}" + texts
    )
    with pytest.raises(InputError, match="'toy': its prompts cannot be made: TemplateError: no ch"):
        attempt(folder, chat_of(config, tokenizer, "base"))
    tokenizer.chat_template = texts
    attempt(folder, chat_of(config, tokenizer, "base"))


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


def joint(aggregation: str = "!function gather", **changes) -> dict:
    metric = {"metric": "overlap", "aggregation": aggregation, "higher_is_better": True}
    return {
        **GENERATE,
        "process_results": "!function trick",
        "metric_list": [metric],
        **changes,
    }


@pytest.mark.parametrize(
    ("task", "code", "says"),
    [
        (
            joint(),
            PAIRS + "def gather(items):\n    import a_package_that_nobody_has\n",
            "'overlap' cannot be aggregated: ModuleNotFoundError: No module named 'a_package",
        ),
        (
            joint(),
            PAIRS + "def gather(items):\n    return {'overlap': 1.0}\n",
            "'overlap' cannot be aggregated: TypeError",
        ),
        # Texts are no classes.
        (joint("f1"), PAIRS, "'overlap' cannot be aggregated: ValueError"),
        # Needs all documents: the jackknife leaves some out.
        (
            joint(),
            PAIRS + "def gather(items):\n    assert len(items) == 12, len(items)\n    return 1.0\n",
            "'overlap' cannot be aggregated: AssertionError: 11",
        ),
        (
            {**CHOOSE, "metric_list": [{"metric": "mcc", "aggregation": "bleu", **UP}]},
            "",
            "'mcc' cannot be aggregated: TypeError",
        ),
    ],
)
def test_an_aggregation_that_always_fails_is_one_message(task, code, says, folder):
    write_task(folder, task, code)
    with pytest.raises(InputError, match=f"task 'toy': metric {says}"):
        attempt(folder)


@pytest.mark.parametrize(
    ("task", "code"),
    [
        # A precision: there is none where no answer is right, or where none is wrong.
        (
            joint(),
            "def trick(document, answers):\n"
            "    return {'overlap': answers[0] == document['answer']}\n"
            "def gather(items):\n"
            "    return sum(items) / sum(items) + len(items) / (len(items) - sum(items))\n",
        ),
        # Answers that nobody can make up.
        (
            joint(),
            "import json\n"
            "def trick(document, answers):\n"
            "    return {'overlap': json.loads(answers[0])['score']}\n"
            "def gather(items):\n"
            "    return max(items)\n",
        ),
        (
            joint(),
            "def trick(document, answers):\n"
            "    return {'overlap': int(answers[0])} if answers[0] == '7' else {}\n"
            "def gather(items):\n"
            "    return items[0]\n",
        ),
        # Running what a model wrote is left to the scoring of models.
        (
            joint(unsafe_code=True),
            "def trick(document, answers):\n    raise SystemExit\n"
            "def gather(items):\n    raise OSError\n",
        ),
        (
            joint(doc_to_target="{{answer}}", process_results="!function trick"),
            PAIRS + "def gather(items):\n    return sum(a == b for a, b in items) / len(items)\n",
        ),
        (joint("bleu"), PAIRS),
        ({**CHOOSE, "metric_list": [{"metric": "mcc"}]}, ""),
        (
            {**CHOOSE, "metric_list": [{"metric": "f1", "aggregation": "!function gather", **UP}]},
            MACRO,
        ),
    ],
)
def test_an_aggregation_that_works_for_some_answers_passes(task, code, folder):
    write_task(folder, task, code)
    attempt(folder)
