"""What models answered to some documents, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.choice.results import Results
from evomerge.journal.documents import read_answers
from evomerge.score import Split


@dataclass(frozen=True)
class Answer:
    """What one model answered.

    Attributes:
        text: The generated text; of multiple choice the number of the choice, from 0.
        values: Metrics by name.
    """

    text: str
    values: dict[str, float]


@dataclass(frozen=True)
class Answered:
    """One document.

    Attributes:
        task: Its task.
        document: Its number there.
        split: Where it was scored.
        answers: By model.
        question: What was asked, where it is known.
    """

    task: str
    document: int
    split: Split
    answers: dict[str, Answer]
    question: str = ""


def answers_of(results: Results, models: Sequence[str], count: int) -> list[Answered]:
    """Documents that all models answered, those first whose answers differ.

    Generated answers come before choices, validation documents before search documents: holdout is
    for numbers.

    Args:
        results: The run's.
        models: Ids of candidates; those that have answered nothing are left out.
        count: How many documents at most.
    """
    for split in ("validation", "search"):
        known = {name: _rows(results, name, split) for name in models}
        known = {name: rows for name, rows in known.items() if rows}
        if known and models[0] in known:
            break
    else:
        return []
    shared = set.intersection(*(set(rows) for rows in known.values()))
    found = []
    for task, document in sorted(shared):
        answers = {name: _answer(rows[task, document]) for name, rows in known.items()}
        if all(answer is not None for answer in answers.values()):
            told = {name: answer for name, answer in answers.items() if answer is not None}
            found.append(Answered(task, document, split, told))
    generated = {
        row.task for row in found if any(known[n][row.task, row.document]["text"] for n in known)
    }
    found.sort(
        key=lambda row: (
            row.task not in generated,
            len({answer.text for answer in row.answers.values()}) == 1,
        )
    )
    return found[:count]


def _rows(results: Results, name: str, split: Split) -> dict[tuple[str, int], dict[str, Any]]:
    candidate = results.state.candidates[name]
    if candidate.scores(split) is None:
        return {}
    return read_answers(results.run_dir, candidate.parts(split), name, split)


def _answer(row: dict[str, Any]) -> Answer | None:
    values = {
        name.removeprefix("metric:"): value
        for name, value in row.items()
        if name.startswith("metric:") and value is not None
    }
    choices = row.get("log_likelihoods") or []
    text = row.get("text") or ""
    if not text and len(choices) > 1:
        text = str(max(range(len(choices)), key=choices.__getitem__))
    return Answer(text, values) if text or values else None
