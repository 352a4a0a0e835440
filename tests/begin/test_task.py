"""A task from a JSON Lines file: what its columns are for, and what a model sees of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evomerge.begin.rows import find_columns
from evomerge.begin.task import Shown, write_task
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.score import TaskSet
from evomerge.score.config import ScoreConfig
from evomerge.search.check import check
from fixtures import make_workspace

ROOT = Path(__file__).parents[2]

CHOICES = [
    {"question": "2+2?", "choices": ["3", "4"], "answer": 1},
    {"question": "1+2?", "choices": ["3", "4"], "answer": 0},
]


def write(folder: Path, rows: list, name: str = "quiz") -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def changed(**columns) -> list[dict]:
    """The rows with other columns, by a function of each row."""
    return [
        {**row, **{name: make(row) for name, make in columns.items()}}
        for row in (dict(each) for each in CHOICES)
    ]


@pytest.mark.parametrize(
    ("rows", "by"),
    [
        (CHOICES, "number"),
        (changed(answer=lambda row: str(row["answer"])), "number"),
        (changed(answer=lambda row: row["answer"] + 1), "number from 1"),
        (changed(answer=lambda row: "AB"[row["answer"]]), "letter"),
        (changed(answer=lambda row: row["choices"][row["answer"]]), "text"),
        (
            changed(
                choices=lambda row: {"text": row["choices"], "label": ["x", "y"]},
                answer=lambda row: "xy"[row["answer"]],
            ),
            "label",
        ),
    ],
    ids=["number", "digits", "from-1", "letter", "text", "label"],
)
def test_however_the_right_choice_is_named(tmp_path, rows, by):
    if by == "text":
        # Numbers as texts would be numbers of choices.
        for row in rows:
            row["choices"] = [f"{each} apples" for each in row["choices"]]
            row["answer"] = f"{row['answer']} apples"
    task = write_task(write(tmp_path, rows))
    assert f"the right choice's {by}" in task.lines[-1]
    assert [shown.right for shown in task.shown] == [1, 0]
    assert task.shown[0].prompt == "Question: 2+2?\nAnswer:"


def test_a_column_for_each_choice(tmp_path):
    rows = [{"ctx": "a", "question": "q", "ending0": "x", "ending1": "y", "label": 1}]
    columns = find_columns(rows, None, {})
    assert (columns.choices, columns.answer) == (("ending0", "ending1"), "label")
    task = write_task(write(tmp_path, rows))
    assert task.shown == (Shown("Question: q\nAnswer:", (" x", " y"), 1),)


@pytest.mark.parametrize(
    ("names", "answer", "right"),
    [
        ([f"opt{n}" for n in range(12)], 10, 10),
        (["option1", "option2"], "1", 0),
        (["a", "B"], "A", 0),
    ],
)
def test_columns_are_in_the_order_that_their_names_say(tmp_path, names, answer, right):
    row = {"question": "q", **{name: f"is {name}" for name in reversed(names)}, "answer": answer}
    task = write_task(write(tmp_path, [row]))
    assert task.shown[0].answers == tuple(f" is {name}" for name in names)
    assert task.shown[0].right == right


def test_columns_with_a_gap_are_no_choices():
    assert (
        find_columns([{"question": "q", "B": "x", "C": "y", "answer": "B"}], None, {}).choices == ()
    )


@pytest.mark.parametrize(
    ("choices", "answer", "right"), [(["1", "0"], "1", 0), ([1, 0], 1, 1), ([4, 9], 9, 1)]
)
def test_an_answer_that_is_a_choice_is_that_choice(tmp_path, choices, answer, right):
    """A number counts choices first, and is one where it counts none."""
    rows = [{"question": "q", "choices": choices, "answer": answer}]
    assert write_task(write(tmp_path, rows)).shown[0].right == right


@pytest.mark.parametrize(
    "rows",
    [
        [{"question": "2020-01-01", "answer": "2020-01-02"}],
        [{"question": "q", "answer": 10**30}],
        [{"question": "q", "answer": 1}, {"question": "q", "answer": 1.5}],
    ],
)
def test_what_would_be_read_otherwise_is_refused(tmp_path, rows):
    with pytest.raises(InputError, match="(is read as|cannot be)"):
        write_task(write(tmp_path, rows))


def test_answers_that_are_written(tmp_path):
    rows = [{"passage": "Long.", "prompt": "Say it: ", "completion": "yes\nno"}]
    task = write_task(write(tmp_path, rows))
    assert task.kind == "generation"
    assert task.shown == (Shown("Long.\n\nSay it: ", ("yes\nno",), 0),)
    written = yaml.safe_load(task.path.read_text())
    assert written["generation_kwargs"]["until"] == ["\n\n\n"]
    assert written["dataset_kwargs"] == {"data_files": {"test": "quiz.jsonl"}}


def test_a_right_answer_counts_however_it_is_spaced(tmp_path):
    rows = [{"question": "Capital of Peru?", "answer": " Lima\n"}] * 2
    task = write_task(write(tmp_path, rows))
    config = ScoreConfig.model_validate(
        {"objectives": [{"task": "quiz"}], "include_path": [str(tmp_path)]}
    )
    loaded = TaskSet(config, tmp_path).tasks["quiz"]
    loaded.build_all_requests(rank=0, world_size=1)
    for request in loaded.instances:
        request.resps = [" lima\n"]
    loaded.apply_filters()
    (document, *_) = loaded.eval_docs
    filtered = loaded.instances[0].filtered_resps["none"]
    assert loaded.process_results(document, [filtered]) == {"exact_match": 1.0}
    assert task.shown[0].answers == (" Lima",)


def test_tokens_suffice_for_any_script(tmp_path):
    task = write_task(write(tmp_path, [{"question": "q", "answer": "\u9f98" * 20}]))
    assert yaml.safe_load(task.path.read_text())["generation_kwargs"]["max_gen_toks"] == 61


def test_texts_are_measured_by_perplexity(tmp_path):
    task = write_task(write(tmp_path, [{"id": 1, "text": "A text."}]))
    assert (task.kind, task.shown) == ("perplexity", (Shown("", ("A text.",), 0),))


def test_somebody_says_what_is_what(tmp_path):
    rows = [{"a": "Why?", "b": ["x", "y"], "c": 0, "d": "so"}]
    named = {"question": "a", "choices": "b", "answer": "c"}
    first = write_task(write(tmp_path, rows), tmp_path / "one.yaml", "one", named=named)
    assert first.kind == "multiple_choice" and first.name == "one"
    named = {"question": "a", "answer": "d"}
    prompt = "Q {{a}} A"
    second = write_task(
        write(tmp_path, rows), tmp_path / "two.yaml", "two", "generation", named, prompt
    )
    assert second.shown == (Shown("Q Why? A", (" so",), 0),)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "no documents"),
        ("{}\nhello\n", {}, "line 2: not JSON"),
        ("[1]\n", {}, "line 1: expected an object"),
        ('{"a": 1, "b": 2}\n', {}, "name --question"),
        ('{"question": "a", "choices": ["x", "y"]}\n', {}, "name --answer"),
        ('{"question": "a", "choices": ["x", "y"], "answer": 7}\n', {}, "names none of its 2"),
        ('{"question": "a", "answer": null}\n', {"kind": "generation"}, "name --answer"),
        ('{"question": "a"}\n', {"kind": "choice"}, "valid: multiple_choice, generation"),
        ('{"question": "a", "answer": "b"}\n', {"named": {"answer": "anser"}}, "did you mean"),
        (
            '{"my question": "a", "answer": "b"}\n',
            {"named": {"question": "my question"}},
            "another name",
        ),
        (
            '{"question": "a", "b": 1, "answer": 0}\n',
            {"named": {"choices": "b"}},
            "has no list in every document",
        ),
        ('{"question": "a", "answer": "b"}\n', {"prompt": "{{question"}, "task 'quiz'"),
        ('{"question": "a", "answer": "b"}\n', {"prompt": "{{query}}"}, "'query' is undefined"),
        ('{"question": ["a"], "answer": "b"}\n', {}, "document 0: 'question' is"),
        ('{"question": "a", "answer": {"text": ["b"]}}\n', {}, "document 0: 'answer' is"),
        (
            '{"question": "a", "choices": ["x", "y"], "answer": 0}\n'
            '{"question": "a", "choices": {"text": ["x", "y"], "label": ["0", "1"]}, "answer": 0}',
            {},
            "document 1: its 'choices' are written in another way",
        ),
        (
            '{"question": "a", "B": "x", "C": "y", "answer": "B"}\n',
            {"named": {"choices": "B, C"}},
            "names none of its 2",
        ),
        ('{"loop": "a", "answer": "b"}\n', {"named": {"question": "loop"}}, "another name"),
        ('{"question": "a", "choices": ["x", "y"], "answer": "AB"}\n', {}, "names none of its 2"),
        ('{"question": "a", "choices": ["x", "y"], "answer": "²"}\n', {}, "names none of its 2"),
        (f'{{"question": "a", "choices": ["x", "y"], "answer": "{"1" * 5000}"}}\n', {}, "none of"),
    ],
)
def test_what_cannot_be_used_is_one_message_and_no_file(tmp_path, text, options, said):
    path = tmp_path / "quiz.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="(?s).*") as caught:
        write_task(path, **options)
    assert said in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["quiz.jsonl"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"name": "../evil"}, "no task's name"), ({"out": Path("quiz.yml")}, "must end in .yaml")],
)
def test_names_that_cannot_be(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        write_task(write(tmp_path, CHOICES), **options)


def test_a_file_that_is_there_is_kept(tmp_path):
    path = write(tmp_path, CHOICES)
    (tmp_path / "quiz.yaml").write_text("mine")
    with pytest.raises(InputError, match="there already"):
        write_task(path)
    assert (tmp_path / "quiz.yaml").read_text() == "mine"
    with pytest.raises(InputError, match="no folder"):
        write_task(path, tmp_path / "none" / "quiz.yaml")


def test_a_search_takes_it(tmp_path):
    rows = [{"question": f"{n}?", "choices": ["a", "b"], "answer": n % 2} for n in range(40)]
    (tmp_path / "tasks").mkdir()
    data = write(tmp_path, rows)
    task = write_task(data, tmp_path / "tasks/quiz.yaml")
    assert yaml.safe_load(task.path.read_text())["dataset_kwargs"]["data_files"] == {
        "test": "../quiz.jsonl"
    }
    assert task.data_dir == tmp_path
    score = {"objectives": [{"task": "quiz"}], "data_path": [str(task.data_dir)]}
    path = make_workspace(tmp_path, score=score)
    assert any("objective quiz: acc" in line for line in check(load_config(path), tmp_path).lines)


def test_the_page_says_what_the_command_says(tmp_path):
    page = (ROOT / "docs/own_task.md").read_text(encoding="utf-8")
    data, commands, said = (
        re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1]
        for language in ("json", "sh", "text")
    )
    (tmp_path / "capitals.jsonl").write_text(data)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr
