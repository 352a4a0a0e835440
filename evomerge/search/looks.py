"""What is looked at of a run that nobody has open: a candidate's recipe, its kin, the report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from evomerge.choice import Results
from evomerge.choice.answers import Answered, answers_of
from evomerge.config import load_config
from evomerge.errors import EvomergeError, InputError
from evomerge.files import replacing
from evomerge.journal import Candidate, replay
from evomerge.journal.folder import CONFIG_FILE, RECIPES_DIR, REPORT_FILE
from evomerge.recipe import Recipe, read_recipe
from evomerge.record.report import write_html
from evomerge.score import TaskSet
from evomerge.score.faults import told_as

NUM_ANSWERS = 10
"""Documents whose answers a report shows."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beside:
    """A candidate and the parents.

    Attributes:
        names: The candidate, and base and experts behind it.
        rows: Their scores, as the final table has them.
        dimensions: Names of the genome's numbers.
        genome: Their points, of those that have one.
    """

    names: list[str]
    rows: list[dict[str, Any]]
    dimensions: Sequence[str] = ()
    genome: dict[str, list[float]] = field(default_factory=dict)


@contextmanager
def reading(run_dir: Path) -> Iterator[None]:
    """Say what is to be done where documents of a run cannot be read.

    Raises:
        InputError: They are missing or damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{run_dir}: documents are missing or damaged: {str(error).splitlines()[0]}\n"
            f"`evomerge resume {run_dir}` scores them again"
        ) from None


def recipe_of(run_dir: Path, candidate: Candidate) -> Recipe:
    """A candidate's recipe, from the journal or from its file.

    Raises:
        InputError: The file is missing or damaged.
    """
    if candidate.recipe_json is not None:
        return Recipe.from_json(candidate.recipe_json)
    return read_recipe(run_dir / RECIPES_DIR / f"{candidate.id}.yaml")


def beside_parents(results: Results, name: str) -> Beside:
    """A candidate with base and experts."""
    names = list(dict.fromkeys([name, *results.parents]))
    state = results.state
    known = {each: state.candidates[each].genome for each in names}
    genome = {each: list(point) for each, point in known.items() if point is not None}
    dimensions = state.dimensions(state.candidates[name].phase) if name in genome else ()
    genome = {each: point for each, point in genome.items() if len(point) == len(dimensions)}
    return Beside(names, [results.row(each) for each in names], list(dimensions), genome)


def with_questions(run_dir: Path, answered: Sequence[Answered]) -> list[Answered]:
    """Documents with what was asked, as far as the tasks can be opened here."""
    if not answered:
        return []
    try:
        tasks = TaskSet(load_config(run_dir / CONFIG_FILE).score, run_dir, may_read_all=True)
    except EvomergeError as error:
        logger.warning("what was asked is left out: %s", str(error).splitlines()[0])
        return list(answered)
    return asked(tasks, answered)


def asked(tasks: TaskSet, answered: Sequence[Answered]) -> list[Answered]:
    """Documents with what was asked; as they are, where a task cannot say it."""
    try:
        return [_ask(tasks, each) for each in answered]
    except EvomergeError as error:
        logger.warning("what was asked is left out: %s", str(error).splitlines()[0])
        return list(answered)


def _ask(tasks: TaskSet, each: Answered) -> Answered:
    with told_as(InputError, f"task {each.task!r}: document {each.document} cannot be read"):
        task, document = tasks.tasks[each.task], tasks.documents[each.task][each.document]
        question = str(task.doc_to_text(document))
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = enumerate(task.doc_to_choice(document))
            question += " " + " ".join(f"({number}) {text}" for number, text in choices)
    return replace(each, question=question)


def write_report(run_dir: Path) -> Path:
    """Write the report of a run anew from its folder alone; where it is."""
    state = replay(run_dir)
    if not state.started:
        raise InputError(f"{run_dir}: the run never began")
    results = Results(run_dir, state)
    chosen = results.state.decided.get("chosen")
    names = [*([chosen] if chosen is not None else []), *results.parents]
    answered = answers_of(results, list(dict.fromkeys(names)), NUM_ANSWERS) if names else []
    answered = with_questions(run_dir, answered)
    path = run_dir / REPORT_FILE
    with replacing(path) as temporary:
        write_html(results, lambda candidate: recipe_of(run_dir, candidate), temporary, answered)
    return path
