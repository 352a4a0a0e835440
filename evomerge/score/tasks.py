"""The lm-eval tasks of a search: their objectives and their documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.score.config import ObjectiveConfig, ScoreConfig
from evomerge.score.faults import told_as
from evomerge.score.load import load_task
from evomerge.score.protocol import Block, cut_blocks
from evomerge.score.splits import Splits, content_key, draw_splits

METRIC_RANGES: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(
        ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "f1", "pass@1"),
        (0.0, 1.0),
    ),
    **dict.fromkeys(("bleu", "chrf"), (0.0, 100.0)),
    **dict.fromkeys(
        ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"), (0.0, None)
    ),
    "mcc": (-1.0, 1.0),
}
"""Values that lm-eval's metrics can have."""


@dataclass(frozen=True)
class Objective:
    """An objective as the task has it.

    Attributes:
        name: "task" or, where a task has several, "task/metric" or "task/metric/filter"; unique
            in a search.
        task: The task's name.
        metric: The metric's name.
        filter: The filter that post-processes answers.
        higher_is_better: The metric's direction.
        preference: Its share when objectives are combined.
        limit: Worst value that is allowed.
        parent_margin: How much worse than the best of base and experts a model may be.
        reference: Value from which on a better one counts in hypervolumes.
    """

    name: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    preference: float
    limit: float | None = None
    parent_margin: float | None = None
    reference: float | None = None

    def loss(self, value: float) -> float:
        """The value as something to minimize; the one place where directions are turned."""
        return -value if self.higher_is_better else value

    def value(self, loss: float) -> float:
        """The value of a loss."""
        return -loss if self.higher_is_better else loss

    @property
    def loss_range(self) -> tuple[float | None, float | None]:
        """Least and greatest value of the loss, as far as the metric's name tells."""
        low, high = METRIC_RANGES.get(self.metric, (None, None))
        if not self.higher_is_better:
            return low, high
        return None if high is None else -high, None if low is None else -low

    @property
    def column(self) -> str:
        """Name of the metric among a document's values."""
        return self.metric if self.filter == "none" else f"{self.metric}/{self.filter}"


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
        names = list(dict.fromkeys(objective.task for objective in config.objectives))
        self.tasks: dict[str, Any] = {name: load_task(name, folders) for name in names}
        for task in self.tasks.values():
            if config.num_fewshot is not None:
                task.set_config(key="num_fewshot", value=config.num_fewshot)
        self.objectives = _named([self._objective(entry) for entry in config.objectives])
        _check_unique([objective.name for objective in self.objectives])

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
        return draw_splits(self.documents, self.config.splits, self._separate_examples())

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
        """A task's objectives that are no mean over documents, as functions of all of them.

        Args:
            name: The task.

        Returns:
            By metric: a function of what the task gives that metric for each document.
        """
        aggregations: dict[str, Any] = self.tasks[name].aggregation()
        return {
            o.metric: aggregations[o.metric]
            for o in self.objectives
            if o.task == name
            and getattr(aggregations[o.metric], "__name__", "") not in ("mean", "nanmean")
        }

    def cut_blocks(self, name: str, documents: Sequence[int]) -> list[Block]:
        """Cut a split's documents of a task; where a metric needs all of them, into one block."""
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

    def _objective(self, entry: ObjectiveConfig) -> Objective:
        task = self.tasks[entry.task]
        directions: dict[str, Any] = task.higher_is_better()
        metric = entry.metric or next(iter(directions), "")
        if metric not in directions:
            raise InputError(
                f"score.objectives: task {entry.task!r} has no metric {metric!r}; "
                f"{closest(metric, directions)}"
            )
        if directions[metric] not in (True, False):
            raise InputError(
                f"task {entry.task!r}: metric {metric!r} has higher_is_better "
                f"{directions[metric]!r}; valid: true, false"
            )
        _check_aggregation(entry.task, metric, task.aggregation().get(metric))
        filters = [str(ensemble.name) for ensemble in task._filters]
        chosen = entry.filter or next(iter(filters), "")
        if chosen not in filters:
            raise InputError(
                f"score.objectives: task {entry.task!r} has no filter {chosen!r}; "
                f"{closest(chosen, filters)}"
            )
        return Objective(
            name=entry.task,
            task=entry.task,
            metric=metric,
            filter=chosen,
            higher_is_better=bool(directions[metric]),
            preference=entry.preference,
            limit=entry.limit,
            parent_margin=entry.parent_margin,
            reference=entry.reference,
        )


def _named(objectives: list[Objective]) -> tuple[Objective, ...]:
    """Objectives with as much of task, metric and filter in their names as tells them apart."""
    tasks = Counter(o.task for o in objectives)
    metrics = Counter((o.task, o.metric) for o in objectives)
    result = []
    for o in objectives:
        name = o.task
        if tasks[o.task] > 1:
            name += f"/{o.metric}"
        if metrics[o.task, o.metric] > 1:
            name += f"/{o.filter}"
        result.append(replace(o, name=name))
    return tuple(result)


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
