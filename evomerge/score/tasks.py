"""The lm-eval tasks of a search: what is measured of them, and their documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.objectives import (
    ANSWER_TOKENS,
    OBJECTIVES,
    Measure,
    MetricConfig,
    MetricName,
    ObjectiveConfig,
    ObjectiveKind,
    Resolve,
)
from evomerge.score.config import SPLITS, ScoreConfig
from evomerge.score.faults import told_as
from evomerge.score.load import load_task
from evomerge.score.objective import Objective
from evomerge.score.protocol import Block, cut_blocks
from evomerge.score.splits import Sizes, Splits, content_key, draw_splits


class TaskSet:
    """The tasks of a search, loaded.

    Args:
        config: Names, metrics and folders.
        config_dir: What relative folders are relative to.

    Raises:
        InputError: A task, metric, filter or folder is not there.
    """

    def __init__(self, config: ScoreConfig, config_dir: Path) -> None:
        self.config = config
        folders = []
        for folder in config.include_path:
            path = (config_dir / Path(folder).expanduser()).resolve()
            if not path.is_dir():
                raise InputError(f"score.include_path: no folder {folder!r} (looked for {path})")
            folders.append(path)
        wanted = [metric for entry in config.objectives for metric in entry.metrics]
        names = list(dict.fromkeys(metric.task for metric in wanted))
        self.tasks: dict[str, Any] = {name: load_task(name, folders) for name in names}
        for task in self.tasks.values():
            if config.num_fewshot is not None:
                task.set_config(key="num_fewshot", value=config.num_fewshot)
        measures = {metric: self._measure(metric) for metric in wanted}
        named = _named(list(dict.fromkeys(measures.values())))
        for entry in config.objectives:
            if isinstance(entry, MetricConfig) and entry.name is not None:
                (metric,) = entry.metrics
                bare = measures[metric]
                named[bare] = replace(bare, name=entry.name)
        self.measures = tuple(named.values())
        self.kinds: dict[str, ObjectiveKind] = {}
        self.objectives = tuple(
            self._objective(entry, lambda metric: named[measures[metric]])
            for entry in config.objectives
        )
        _check_unique([measure.name for measure in self.measures])

    @cached_property
    def documents(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Every task's documents.

        Raises:
            InputError: A task's data or code raises something.
        """
        documents: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, task in self.tasks.items():
            with told_as(InputError, f"task {name!r}: its documents cannot be read"):
                documents[name] = list(task.eval_docs)
        return documents

    def draw_splits(self) -> Splits:
        """The documents of each split; examples shown in prompts come from none of them."""
        return draw_splits(
            self.documents, self.config.splits, self._separate_examples(), self._sizes()
        )

    def _sizes(self) -> Sizes:
        """How many documents of each task a split has: what steers nothing is not searched on."""
        steering = {
            metric.task
            for entry in self.config.objectives
            if not entry.monitor
            for metric in entry.metrics
        }
        return {
            name: {
                split: 0
                if split == "search" and name not in steering
                else self.config.splits.size(split)
                for split in SPLITS
            }
            for name in self.tasks
        }

    def reserve_examples(self, splits: Splits) -> None:
        """Let tasks that draw examples from their own documents draw what is in no split.

        Raises:
            InputError: Too few documents are left over.
        """
        for name, task in self.tasks.items():
            num_examples = task.config.num_fewshot or 0
            if not num_examples or name in self._separate_examples():
                continue
            documents, group_by = self.documents[name], self.config.splits.group_by
            used = {
                content_key(self.documents[other][index], group_by)
                for other, by_split in splits.items()
                for indices in by_split.values()
                for index in indices
            }
            free = [d for d in documents if content_key(d, group_by) not in used]
            # One more than needed: lm-eval sets one aside in case it is the document itself.
            if len(free) <= num_examples:
                raise InputError(
                    f"task {name!r} draws {num_examples} examples from its own documents, and the "
                    f"splits leave {len(free)} over; make score.splits smaller"
                )
            with told_as(InputError, f"task {name!r}: its examples cannot be replaced"):
                task.sampler.replace_df(free)

    def joint_metrics(self, name: str) -> dict[str, Callable[[list[Any]], float]]:
        """A task's measures that are no mean over documents, as functions of all of them.

        Args:
            name: The task.

        Returns:
            By metric: a function of what the task gives that metric for each document.
        """
        aggregations: dict[str, Any] = self.tasks[name].aggregation()
        return {
            m.metric: aggregations[m.metric]
            for m in self.measures
            if m.task == name
            and m.metric != ANSWER_TOKENS
            and getattr(aggregations[m.metric], "__name__", "") not in ("mean", "nanmean")
        }

    def cut_blocks(self, name: str, documents: Sequence[int]) -> list[Block]:
        """Cut a split's documents of a task; where a metric needs all of them, into one block."""
        if not documents:
            return []
        whole = bool(self.joint_metrics(name))
        return cut_blocks(name, documents, len(documents) if whole else self.config.block_documents)

    def typical_tokens(
        self, name: str, document_ids: Sequence[int], count: Callable[[str], int]
    ) -> float:
        """Tokens of one document's requests, judged by the first of some documents.

        Args:
            name: The task.
            document_ids: Documents that are scored: one of the others may have no prompt.
            count: Tokens of a text.
        """
        task = self.tasks[name]
        sizes = []
        for document in (self.documents[name][index] for index in document_ids[:20]):
            prompt = str(task.doc_to_text(document))
            answers = [str(task.doc_to_target(document))]
            if task.OUTPUT_TYPE == "multiple_choice":
                answers = [str(choice) for choice in task.doc_to_choice(document)]
            shown = 1 + (task.config.num_fewshot or 0)
            sizes.append(sum(shown * count(prompt) + count(answer) for answer in answers))
        return sum(sizes) / len(sizes)

    def _separate_examples(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Examples of the tasks that have documents of their own for them."""
        examples: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, task in self.tasks.items():
            if not (task.config.num_fewshot or 0):
                continue
            with told_as(InputError, f"task {name!r}: its examples cannot be read"):
                source = getattr(task.fewshot_cfg, "split", None)
                test = task.config.test_split or task.config.validation_split
                if task.fewshot_cfg.samples is not None or (source is not None and source != test):
                    examples[name] = [d for d in task.fewshot_docs() if isinstance(d, Mapping)]
        return examples

    def _measure(self, wanted: MetricName) -> Measure:
        """What a task and its metric are, without a name of its own."""
        task = self.tasks[wanted.task]
        if wanted.metric == ANSWER_TOKENS:
            if task.OUTPUT_TYPE != "generate_until":
                raise InputError(
                    f"score.objectives: task {wanted.task!r} has no generated answers to count "
                    f"tokens of; it asks for {task.OUTPUT_TYPE}"
                )
            return Measure("", wanted.task, ANSWER_TOKENS, "none", higher_is_better=False)
        directions: dict[str, Any] = task.higher_is_better()
        metric = wanted.metric or next(iter(directions), "")
        if metric not in directions:
            raise InputError(
                f"score.objectives: task {wanted.task!r} has no metric {metric!r}; "
                f"{closest(metric, directions)}"
            )
        if directions[metric] not in (True, False):
            raise InputError(
                f"task {wanted.task!r}: metric {metric!r} has higher_is_better "
                f"{directions[metric]!r}; valid: true, false"
            )
        _check_aggregation(wanted.task, metric, task.aggregation().get(metric))
        filters = [str(ensemble.name) for ensemble in task._filters]
        chosen = wanted.filter or next(iter(filters), "")
        if chosen not in filters:
            raise InputError(
                f"score.objectives: task {wanted.task!r} has no filter {chosen!r}; "
                f"{closest(chosen, filters)}"
            )
        return Measure("", wanted.task, metric, chosen, bool(directions[metric]))

    def _objective(self, entry: ObjectiveConfig, resolve: Resolve) -> Objective:
        kind = OBJECTIVES.make(entry, resolve)
        single = kind.single
        name = single.name if single is not None else entry.name or entry.kind
        if name in self.kinds:
            raise InputError(f"score.objectives: {name!r} is named twice")
        self.kinds[name] = kind
        low, high = (None, None) if entry.kind == "metric" else kind.range
        return Objective(
            name=name,
            task="" if single is None else single.task,
            metric=entry.kind if single is None else single.metric,
            filter="none" if single is None else single.filter,
            higher_is_better=kind.higher_is_better,
            preference=entry.preference,
            limit=entry.limit,
            parent_margin=entry.parent_margin,
            reference=entry.reference,
            kind=entry.kind,
            low=low,
            high=high,
            monitor=entry.monitor,
        )


def _named(measures: list[Measure]) -> dict[Measure, Measure]:
    """Measures with as much of task, metric and filter in their names as tells them apart."""
    tasks = Counter(m.task for m in measures)
    metrics = Counter((m.task, m.metric) for m in measures)
    result = {}
    for m in measures:
        name = m.task
        if tasks[m.task] > 1:
            name += f"/{m.metric}"
        if metrics[m.task, m.metric] > 1:
            name += f"/{m.filter}"
        result[m] = replace(m, name=name)
    return result


def _check_unique(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"score.objectives: {name!r} is named twice")


def _check_aggregation(task: str, metric: str, aggregation: Any) -> None:
    """Refuse a name that lm-eval passes over in silence."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    if not callable(aggregation):
        raise InputError(
            f"task {task!r}: metric {metric!r} has an aggregation that lm-eval does not know; "
            f"valid: a !function, {', '.join(sorted(AGGREGATION_REGISTRY))}"
        )
