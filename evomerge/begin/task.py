"""An lm-eval task from a JSON Lines file."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.begin.rows import (
    KINDS,
    LETTERS,
    Columns,
    Kind,
    Row,
    find_columns,
    has_labels,
    options_of,
    read_rows,
    shown_columns,
)
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.score import TaskSet
from evomerge.score.config import ScoreConfig
from evomerge.score.faults import told_as

NUM_SHOWN = 3

MOST_TOKENS = 1024
"""Of an answer; no token has less than a byte of it."""

LEAST_TOKENS = 16

ASKED = ("question", "query", "problem")
"""Columns that need words around them to be a prompt."""


@dataclass(frozen=True)
class Shown:
    """One document as a model sees it.

    Attributes:
        prompt: What stands before the answer.
        answers: What may follow: the choices, or the answer that is expected.
        right: Which of them is right.
    """

    prompt: str
    answers: tuple[str, ...]
    right: int


@dataclass(frozen=True)
class NewTask:
    """A task file that was written.

    Attributes:
        path: The file.
        name: The task's name.
        kind: What is measured.
        num_documents: How many documents it has.
        lines: What the columns are taken for.
        shown: The first documents.
        data_dir: Where the documents lie, if that is not beside the file.
    """

    path: Path
    name: str
    kind: Kind
    num_documents: int
    lines: tuple[str, ...]
    shown: tuple[Shown, ...]
    data_dir: Path | None = None


def write_task(
    data: Path,
    out: Path | None = None,
    name: str | None = None,
    kind: str | None = None,
    named: dict[str, str] | None = None,
    prompt: str | None = None,
) -> NewTask:
    """Write a task file, and load it as a search would.

    Args:
        data: A JSON Lines file.
        out: A new YAML file; by default beside the data, with its name.
        name: The task's; by default the data file's.
        kind: "multiple_choice", "generation" or "perplexity"; by default what the columns say.
        named: Columns by use ("question", "passage", "choices", "answer"); others are found.
        prompt: A Jinja template, in the place of one that is made from the columns.

    Raises:
        InputError: The data cannot be read or used, or the file is there already.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind: no kind {kind!r}; valid: {', '.join(KINDS)}")
    wanted: Kind | None = next((each for each in KINDS if each == kind), None)
    rows = read_rows(data)
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"--name: {name!r} is no task's name; valid: letters, digits, _ . -")
    name = name or "".join(c if c.isalnum() or c in "_-." else "_" for c in data.stem)
    out = out or data.with_name(f"{name}.yaml")
    if set("*?[]") & set(str(data)):
        raise InputError(f"{data}: the name has one of * ? [ ], which lm-eval takes for a pattern")
    if out.suffix != ".yaml":
        raise InputError(f"--out: {out} would not be found as a task; its name must end in .yaml")
    if out.exists():
        raise InputError(f"{out} is there already; name another file with --out, or remove it")
    if not out.parent.is_dir():
        raise InputError(f"--out: no folder {out.parent}")
    columns = find_columns(rows, wanted, named or {})
    task = _task(name, columns, rows, prompt)
    with tempfile.TemporaryDirectory() as temporary:
        # What cannot be loaded is not written.
        shown = _load(Path(temporary), task, data, rows, columns)
    place = os.path.relpath(data.resolve(), out.parent.resolve())
    write_text(out, _to_yaml(task, place))
    is_inside = data.resolve().is_relative_to(out.parent.resolve())
    elsewhere = None if is_inside else data.resolve().parent
    lines = tuple(shown_columns(columns))
    return NewTask(out, name, columns.kind, len(rows), lines, shown, elsewhere)


def _task(name: str, columns: Columns, rows: Sequence[Row], prompt: str | None) -> dict[str, Any]:
    """The task's settings, without where its data are."""
    task: dict[str, Any] = {"task": name}
    if columns.kind == "perplexity":
        return task | {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": f"{{{{{columns.question}}}}}",
            "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
        }
    text = prompt or _template(columns)
    task |= {
        "output_type": "multiple_choice" if columns.kind == "multiple_choice" else "generate_until",
        "doc_to_text": text,
        "target_delimiter": "" if _ends_in_space(text, columns, rows) else " ",
    }
    if columns.kind == "multiple_choice":
        return task | _choosing(columns, rows)
    answers = [str(row[columns.answer or ""]).strip() for row in rows]
    until = ["\n"] if not any("\n" in answer for answer in answers) else ["\n\n\n"]
    # One more: many models write a space first.
    longest = max(len(answer.encode("utf-8", "replace")) for answer in answers) + 1
    most = min(MOST_TOKENS, max(LEAST_TOKENS, longest))
    filters = [{"function": "remove_whitespace"}, {"function": "take_first"}]
    return task | {
        "doc_to_target": f"{{{{{columns.answer} | string | trim}}}}",
        "generation_kwargs": {"until": until, "max_gen_toks": most, "do_sample": False},
        "filter_list": [{"name": "none", "filter": filters}],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
            }
        ],
    }


def _template(columns: Columns) -> str:
    asked = f"{{{{{columns.question}}}}}"
    if columns.question.lower() in ASKED:
        asked = f"Question: {asked}\nAnswer:"
    return asked if columns.passage is None else f"{{{{{columns.passage}}}}}\n\n{asked}"


def _ends_in_space(text: str, columns: Columns, rows: Sequence[Row]) -> bool:
    """Whether prompts do, so that answers need not begin with one."""
    if text.endswith(f"{{{{{columns.question}}}}}"):
        return all(str(row[columns.question]).endswith((" ", "\n")) for row in rows)
    return text.endswith((" ", "\n"))


def _choosing(columns: Columns, rows: Sequence[Row]) -> dict[str, Any]:
    """How a task of multiple choice finds its choices, and the right one."""
    first = columns.choices[0]
    listed = first
    if len(columns.choices) > 1:
        listed = f"[{', '.join(columns.choices)}]"
    elif has_labels(rows[0], columns.choices):
        listed = f"{first}.text"
    most = max(len(options_of(row, columns.choices)) for row in rows)
    answer = columns.answer
    target = {
        "number": f"{{{{{answer} | int}}}}",
        "number from 1": f"{{{{({answer} | int) - 1}}}}",
        "letter": f"{{{{'{LETTERS[:most]}'.index({answer})}}}}",
        "text": f"{{{{({listed} | map('string') | list).index({answer} | string)}}}}",
        "label": f"{{{{{first}.label.index({answer})}}}}",
    }[columns.answers_by or "number"]
    metrics = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ]
    return {
        "doc_to_choice": f"{{{{{listed} | map('string') | list}}}}",
        "doc_to_target": target,
        "metric_list": metrics,
    }


def _load(
    folder: Path, task: dict[str, Any], data: Path, rows: Sequence[Row], columns: Columns
) -> tuple[Shown, ...]:
    """The first documents of the task, as lm-eval makes them, once all of them can be made.

    Raises:
        InputError: lm-eval cannot load the task, or reads something else than the file says.
    """
    # A task reads its own folder alone.
    shutil.copyfile(data, folder / "documents.jsonl")
    (folder / "task.yaml").write_text(_to_yaml(task, "documents.jsonl"), encoding="utf-8")
    name = task["task"]
    config = ScoreConfig.model_validate(
        {"objectives": [{"task": name}], "include_path": [str(folder)]}
    )
    tasks = TaskSet(config, folder)
    loaded = tasks.tasks[name]
    documents = list(tasks.documents[name])
    for number, (row, document) in enumerate(zip(rows, documents, strict=True)):
        _require_same(number, row, document, columns)
    with told_as(InputError, f"task {name!r}: a prompt cannot be made"):
        return tuple([_shown(loaded, document) for document in documents][:NUM_SHOWN])


def _require_same(number: int, row: Row, document: Mapping[str, Any], columns: Columns) -> None:
    """Refuse what changes when it is loaded: dates, large numbers, numbers of several types."""
    for name in filter(None, (columns.passage, columns.question, columns.answer, *columns.choices)):
        written, read = row[name], document[name]
        if name in columns.choices and len(columns.choices) == 1:
            written, read = options_of(row, (name,)), options_of(dict(document), (name,))
        if str(written) != str(read):
            raise InputError(
                f"document {number}: {name!r} is {str(written)[:60]!r} and is read as "
                f"{str(read)[:60]!r}; write numbers and dates of this column as texts, and the "
                "same way in all documents"
            )


def _shown(loaded: Any, document: Mapping[str, Any]) -> Shown:
    target = loaded.doc_to_target(document)
    answers: tuple[str, ...] = (str(target),)
    right = 0
    if loaded.OUTPUT_TYPE == "multiple_choice":
        answers, right = tuple(loaded.doc_to_choice(document)), int(target)
    if loaded.OUTPUT_TYPE != "loglikelihood_rolling":
        answers = tuple(f"{loaded.config.target_delimiter}{each}" for each in answers)
    return Shown(loaded.doc_to_text(document), answers, right)


def _to_yaml(task: dict[str, Any], data: str) -> str:
    head, *rest = task.items()
    placed = dict([head]) | {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "num_fewshot": 0,
    }
    whole = placed | dict(rest) | {"metadata": {"version": 1}}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
