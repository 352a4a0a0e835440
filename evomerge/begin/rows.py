"""JSON Lines files, and which of their columns asks, offers choices, and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evomerge.errors import InputError, closest

Row = dict[str, Any]
Kind = Literal["multiple_choice", "generation", "perplexity"]
Way = Literal["number", "number from 1", "letter", "text", "label"]
Fits = tuple[Way, Callable[[Row], bool]]
KINDS: tuple[Kind, ...] = ("multiple_choice", "generation", "perplexity")

PASSAGES = ("passage", "context", "article", "story", "support")
QUESTIONS = ("question", "query", "problem", "prompt", "instruction", "input", "sentence", "goal")
CHOICES = ("choices", "options", "endings", "candidates", "answers")
ANSWERS = (
    *("answer", "label", "gold", "target", "answerKey", "answer_key", "answer_idx", "correct"),
    *("correct_answer", "output", "response", "completion", "solution"),
)
TEXTS = ("text", "content", "document", "body")

ONE_CHOICE = re.compile(r"(?i)(choice|option|ending|answer|opt|sol)?_?([a-z]|\d{1,2})")
"""A column that holds one of several choices: A, option_b, ending0."""

TAKEN = frozenset(
    (
        *("and", "or", "not", "in", "is", "if", "else", "loop", "self", "true", "false", "none"),
        *("True", "False", "None", "range", "dict", "lipsum", "cycler", "joiner", "namespace"),
    )
)
"""Names that mean something else in a Jinja template."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are for.

    Attributes:
        kind: What is measured.
        question: What is asked; of perplexity the text itself.
        passage: What stands before the question.
        choices: One column with lists, or one for each choice.
        answer: Which choice is right, or what shall be written.
        answers_by: How `answer` names a choice: its number from 0 or from 1, its letter, its text,
            or its label, where choices have labels.
    """

    kind: Kind
    question: str
    passage: str | None = None
    choices: tuple[str, ...] = ()
    answer: str | None = None
    answers_by: Way | None = None


def read_rows(path: Path) -> list[Row]:
    """A JSON Lines file.

    Raises:
        InputError: A line is no JSON object, or there is none, with its number.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not JSON ({str(error)[:100]}); a JSON Lines file has one "
                "object in each line"
            ) from None
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {number}: expected an object such as "
                '{"question": "...", "answer": "..."}'
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no documents; a JSON Lines file has one object in each line")
    return rows


def find_columns(rows: Sequence[Row], kind: Kind | None, named: dict[str, str]) -> Columns:
    """Find out what the columns are for.

    Args:
        rows: All documents.
        kind: What is to be measured, where somebody says it.
        named: Columns that somebody names: "question", "passage", "choices", "answer".

    Raises:
        InputError: It cannot be found out, or a named column is not there.
    """
    known = list(dict.fromkeys(name for row in rows for name in row))
    named = {use: ",".join(map(str.strip, name.split(","))) for use, name in named.items()}
    for use, name in named.items():
        for each in name.split(","):
            if each not in known:
                raise InputError(f"--{use}: no column {each!r}; {closest(each, known)}")
    everywhere = [name for name in known if all(row.get(name) is not None for row in rows)]
    choices = _choices(rows, everywhere, named)
    if kind in ("generation", "perplexity"):
        choices = ()
    answer = named.get("answer") or _first(everywhere, ANSWERS, choices)
    question = named.get("question") or _first(everywhere, QUESTIONS, (answer, *choices))
    text = named.get("question") or _first(everywhere, TEXTS, (answer, *choices))
    question = question or text
    if kind is None:
        kind = "multiple_choice" if choices else "generation" if answer else "perplexity"
    if question is None and kind == "perplexity" and len(everywhere) == 1:
        (question,) = everywhere
    if kind == "perplexity":
        question = text or question
        answer = None
    _require(kind, known, question, choices, answer)
    assert question is not None
    for name in filter(None, (question, *choices, answer)):
        _require_everywhere(rows, name)
    passage = named.get("passage") or _first(everywhere, PASSAGES, (question, answer, *choices))
    if kind == "perplexity":
        passage = None
    by = None
    if kind == "multiple_choice":
        assert answer is not None
        by = _answers_by(rows, choices, answer)
    used = [name for name in (question, passage, answer, *choices) if name is not None]
    for name in filter(None, (question, passage, None if choices else answer)):
        _require_texts(rows, name)
    for name in used:
        if not name.isidentifier() or name in TAKEN:
            raise InputError(
                f"column {name!r}: a prompt's template cannot name it; give it another name, of "
                "letters, digits and _"
            )
    return Columns(kind, question, passage, choices, answer, by)


def options_of(row: Row, choices: Sequence[str]) -> list[str]:
    """A document's choices."""
    if len(choices) > 1:
        return [str(row[name]) for name in choices]
    value = row[choices[0]]
    listed = value["text"] if isinstance(value, dict) else value
    return [str(each) for each in listed]


def has_labels(row: Row, choices: Sequence[str]) -> bool:
    """Whether the choices stand as {"text": [...], "label": [...]}."""
    return len(choices) == 1 and isinstance(row[choices[0]], dict)


def _first(known: Sequence[str], names: Sequence[str], taken: Sequence[str | None]) -> str | None:
    by_lower = {name.lower(): name for name in known if name not in taken}
    return next((by_lower[name.lower()] for name in names if name.lower() in by_lower), None)


def _choices(rows: Sequence[Row], known: Sequence[str], named: dict[str, str]) -> tuple[str, ...]:
    lists = [name for name in known if all(_is_list(row[name]) for row in rows)]
    for name in lists:
        kinds = [isinstance(row[name], dict) for row in rows]
        if len(set(kinds)) > 1:
            raise InputError(
                f"document {kinds.index(not kinds[0])}: its {name!r} are written in another way "
                "than those of document 0; write all in one way"
            )
    if "choices" in named:
        found = tuple(named["choices"].split(","))
        if len(found) == 1 and not all(_is_list(row.get(found[0])) for row in rows):
            raise InputError(
                f"--choices: column {found[0]!r} has no list in every document; name one column "
                "with lists, or several columns: a,b,c"
            )
        return found
    named_so = _first(lists, CHOICES, ())
    if named_so is not None:
        return (named_so,)
    families: dict[tuple[str, bool], dict[int, str]] = {}
    for name in known:
        place = place_of(name)
        if place is not None and all(isinstance(row[name], str | int | float) for row in rows):
            family = name.removesuffix(place[0]).lower(), place[0].isdigit()
            families.setdefault(family, {})[place[1]] = name
    for (_, is_numbered), members in families.items():
        first, count = min(members), len(members)
        can_begin = first == 0 or (first == 1 and is_numbered)
        # With a gap between them, or without the first, they are something else.
        if count > 1 and can_begin and max(members) == first + count - 1:
            return tuple(members[place] for place in sorted(members))
    return ()


def place_of(column: str) -> tuple[str, int] | None:
    """Which of several choices a column holds, by its name: the name's end, and its number."""
    match = ONE_CHOICE.fullmatch(column)
    if match is None:
        return None
    end = match[2]
    return end, int(end) if end.isdigit() else LETTERS.index(end.upper())


def _is_list(value: Any) -> bool:
    if isinstance(value, dict):
        texts, labels = value.get("text"), value.get("label")
        if not isinstance(texts, list) or not isinstance(labels, list):
            return False
        return _is_list(texts) and len(labels) == len(texts)
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(each, str | int | float) for each in value)
    )


def _require(
    kind: Kind, known: Sequence[str], question: str | None, choices: Sequence[str], answer: Any
) -> None:
    missing = []
    if question is None:
        missing.append("--question")
    if kind == "multiple_choice" and not choices:
        missing.append("--choices")
    if kind != "perplexity" and answer is None:
        missing.append("--answer")
    if missing:
        raise InputError(
            f"cannot tell which column is what for {kind.replace('_', ' ')}; name "
            f"{' and '.join(missing)}\ncolumns: {', '.join(known)}"
        )


def _require_texts(rows: Sequence[Row], name: str) -> None:
    for number, row in enumerate(rows):
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(
                f"document {number}: {name!r} is {str(value)[:80]!r}; expected a text or a number"
            )


def _require_everywhere(rows: Sequence[Row], name: str) -> None:
    for number, row in enumerate(rows):
        if row.get(name) is None:
            raise InputError(f"document {number} has no {name!r}; give every document one")


def _answers_by(rows: Sequence[Row], choices: Sequence[str], answer: str) -> Way:
    """How answers name a choice.

    Raises:
        InputError: They do not all do it in one way, with the first that does not.
    """
    ways = _ways(rows[0], choices, answer)
    for way, fits in ways:
        if all(fits(row) for row in rows):
            return way
    _, best = max(ways, key=lambda pair: sum(map(pair[1], rows)))
    number = next(n for n, row in enumerate(rows) if not best(row))
    raise InputError(
        f"document {number}: {answer!r} is {str(rows[number][answer])[:80]!r}, which names none of "
        f"its {len(options_of(rows[number], choices))} choices\nvalid: a number, a letter, or a "
        "choice's text, in one way in all documents; --answer names another column"
    )


def _ways(first: Row, choices: Sequence[str], answer: str) -> list[Fits]:
    """The ways in which answers may name a choice, and whether a document's does; the first counts.

    A text that is a choice's is that choice, whatever else it could be. Names of columns count as
    well: the second of B and C is not what B names.
    """
    if has_labels(first, choices):
        return [("label", lambda row: row[answer] in row[choices[0]]["label"])]

    def is_choice(row: Row) -> bool:
        return str(row[answer]) in options_of(row, choices)

    def is_letter(row: Row) -> bool:
        return row[answer] in tuple(LETTERS[: len(options_of(row, choices))])

    def below(row: Row, start: int) -> bool:
        number = _number(row, answer)
        return number is not None and start <= number < start + len(options_of(row, choices))

    ways: list[Fits] = [("text", lambda row: isinstance(row[answer], str) and is_choice(row))]
    places = [place_of(name) for name in choices if len(choices) > 1]
    numbers = [place[1] for place in places if place is not None]
    is_from_0, is_from_1 = (numbers == list(range(n, n + len(choices))) for n in (0, 1))
    is_free = len(numbers) < len(choices)
    if is_free or is_from_0:
        ways.append(("number", lambda row: below(row, 0)))
    if is_free or is_from_0 or is_from_1:
        ways.append(("number from 1", lambda row: below(row, 1)))
    if is_free or is_from_0:
        ways.append(("letter", is_letter))
    # A number that is none of these can be a choice itself.
    return [*ways, ("text", is_choice)]


def _number(row: Row, answer: str) -> int | None:
    value = row[answer]
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 9:
        return int(value)
    return value if isinstance(value, int) else None


def shown_columns(columns: Columns) -> Iterator[str]:
    """What the columns are taken for, in words."""
    if columns.passage is not None:
        yield f"passage: column {columns.passage!r}"
    yield f"{'text' if columns.kind == 'perplexity' else 'question'}: column {columns.question!r}"
    if columns.choices:
        names = ", ".join(map(repr, columns.choices))
        yield f"choices: column{'s' if len(columns.choices) > 1 else ''} {names}"
    if columns.answer is not None:
        by = f", the right choice's {columns.answers_by}" if columns.answers_by else ""
        yield f"answer: column {columns.answer!r}{by}"
