"""What objectives are made of: metrics of loaded tasks, by the names that results have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.objectives import (
    ANSWER_TOKENS,
    METRIC_RANGES,
    OBJECTIVES,
    GroupMetric,
    Measure,
    MetricConfig,
    MetricName,
    ObjectiveConfig,
    ObjectiveKind,
)
from evomerge.score.faults import told_as
from evomerge.score.language import require_language
from evomerge.score.load import Loaded
from evomerge.score.objective import Objective


class Measuring:
    """Objectives of a configuration, and what is measured for them.

    Args:
        entries: The configuration's.
        loaded: What the names in them stand for.
        tasks: lm-eval's tasks by name.

    Attributes:
        measures: What workers measure.
        kinds: How each objective is computed, by its name.
        objectives: In the order of the entries.

    Raises:
        InputError: A metric or filter is not there, or a name stands twice.
    """

    def __init__(
        self,
        entries: tuple[ObjectiveConfig, ...],
        loaded: Mapping[str, Loaded],
        tasks: Mapping[str, Any],
    ) -> None:
        self._entries = entries
        self._loaded = loaded
        self._tasks = tasks
        wanted = [metric for entry in entries for metric in entry.metrics]
        found = {metric: self._measures(metric) for metric in wanted}
        named = _named(list(dict.fromkeys(m for measures in found.values() for m in measures)))
        for entry in entries:
            if isinstance(entry, MetricConfig) and entry.name is not None:
                (metric,) = entry.metrics
                if not loaded[metric.task].is_group:
                    (bare,) = found[metric]
                    named[bare] = replace(bare, name=entry.name)
        self.measures = tuple(named.values())
        self.kinds: dict[str, ObjectiveKind] = {}
        by_metric = {metric: [named[m] for m in measures] for metric, measures in found.items()}
        self.objectives = tuple(self._objective(entry, by_metric) for entry in entries)
        _check_unique([measure.name for measure in self.measures])

    def _measures(self, wanted: MetricName) -> list[Measure]:
        """The metric of a task, or of each task of a group that has it, without names."""
        loaded = self._loaded[wanted.task]
        if not loaded.is_group:
            return [self._measure(wanted)]
        metric, chosen, _ = _of_group(loaded, wanted)
        found = []
        for name, task in loaded.tasks.items():
            directions: dict[str, Any] = task.higher_is_better()
            # What has another metric is left out, as in lm-eval.
            if metric is None or metric in directions:
                one = wanted.model_copy(update={"task": name, "metric": metric, "filter": chosen})
                found.append(self._measure(one))
        if not found:
            has = {m for task in loaded.tasks.values() for m in task.higher_is_better()}
            raise InputError(
                f"score.objectives: no task of the group {wanted.task!r} has a metric {metric!r}; "
                f"{closest(str(metric), has)}"
            )
        if len({(m.metric, m.higher_is_better) for m in found}) > 1:
            raise InputError(
                f"score.objectives: the tasks of {wanted.task!r} have different metrics "
                f"({', '.join(dict.fromkeys(m.metric for m in found))}); name one of them"
            )
        return found

    def _measure(self, wanted: MetricName) -> Measure:
        """What a task and its metric are, without a name of its own."""
        task = self._tasks[wanted.task]
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
        measure = Measure(
            "", wanted.task, metric, chosen, bool(directions[metric]), wanted.answer_language
        )
        if measure.language is not None:
            self._check_language(measure)
        return measure

    def _check_language(self, measure: Measure) -> None:
        """Refuse an answer's language where no answer has one, or nothing is the worst value."""
        assert measure.language is not None
        task = self._tasks[measure.task]
        what = f"score.objectives: answer_language of task {measure.task!r}"
        if task.OUTPUT_TYPE != "generate_until":
            raise InputError(f"{what}: its answers are not generated; leave answer_language out")
        if not is_mean(task.aggregation()[measure.metric]):
            raise InputError(
                f"{what}: {measure.metric!r} is no mean over documents; take a metric that is"
            )
        if worst_value(measure) is None:
            known = ", ".join(sorted(METRIC_RANGES))
            raise InputError(
                f"{what}: {measure.metric!r} has no worst value that is known; valid: {known}"
            )
        require_language(measure.language)

    def _objective(
        self, entry: ObjectiveConfig, measures: dict[MetricName, list[Measure]]
    ) -> Objective:
        def resolve(metric: MetricName) -> Measure:
            if self._loaded[metric.task].is_group:
                raise InputError(
                    f"score.objectives: {entry.kind} takes tasks, and {metric.task!r} is a group"
                )
            return measures[metric][0]

        loaded = self._loaded[entry.task] if isinstance(entry, MetricConfig) else None
        kind: ObjectiveKind
        if isinstance(entry, MetricConfig) and loaded is not None and loaded.is_group:
            (metric,) = entry.metrics
            _, _, by_size = _of_group(loaded, metric)
            parts = measures[metric]
            # All documents that a task has: the splits draw some of each.
            weights = [self._size(p.task) if by_size else 1 for p in parts]
            kind = GroupMetric(entry, parts, weights)
            name = entry.name or self._group_name(entry)
        else:
            kind = OBJECTIVES.make(entry, resolve)
            name = kind.single.name if kind.single is not None else entry.name or entry.default_name
        single = kind.single
        if name in self.kinds:
            raise InputError(f"score.objectives: {name!r} is named twice")
        self.kinds[name] = kind
        for setting in ("limit", "reference"):
            _check_within(name, setting, getattr(entry, setting), kind.range)
        low, high = (None, None) if single is not None and entry.kind == "metric" else kind.range
        return Objective(
            name=name,
            task="" if single is None else single.task,
            metric=_what(kind, entry),
            filter="none" if single is None else single.filter,
            higher_is_better=kind.higher_is_better,
            preference=entry.preference,
            limit=entry.limit,
            parent_margin=entry.parent_margin,
            reference=entry.reference,
            kind="group" if isinstance(kind, GroupMetric) else entry.kind,
            parts=tuple(m.name for m in kind.measures) if isinstance(kind, GroupMetric) else (),
            low=low,
            high=high,
            monitor=entry.monitor,
            language=None if single is None else single.language,
        )

    def _size(self, task: str) -> int:
        with told_as(InputError, f"task {task!r}: its documents cannot be read"):
            return len(self._tasks[task].eval_docs)

    def _group_name(self, entry: MetricConfig) -> str:
        """A group's name, with the metric where several of it are objectives."""
        others = [e for e in self._entries if isinstance(e, MetricConfig)]
        is_alone = sum(other.task == entry.task for other in others) == 1
        return entry.task if is_alone or entry.metric is None else f"{entry.task}/{entry.metric}"


def _check_within(
    name: str, setting: str, value: float | None, ends: tuple[float | None, float | None]
) -> None:
    low, high = ends
    if value is not None and (
        (low is not None and value < low) or (high is not None and value > high)
    ):
        least, most = ("any" if end is None else f"{end:g}" for end in ends)
        raise InputError(
            f"score.objectives: {name!r}: {setting} is {value:g}, and no score can be; valid: "
            f"{least} to {most}"
        )


def _what(kind: ObjectiveKind, entry: ObjectiveConfig) -> str:
    """The metric of an objective, in a word."""
    if isinstance(kind, GroupMetric):
        return kind.measures[0].metric
    return entry.kind if kind.single is None else kind.single.metric


def _of_group(loaded: Loaded, wanted: MetricName) -> tuple[str | None, str | None, bool]:
    """A group's metric, its filter, and whether tasks count by their documents.

    By default the first that the group aggregates; of what it does not, the mean of its tasks.
    """
    for metric, chosen, by_size in loaded.metrics:
        if wanted.metric in (None, metric) and (
            wanted.filter is None or chosen is None or wanted.filter == chosen
        ):
            return metric, wanted.filter or chosen, by_size
    return wanted.metric, wanted.filter, False


def _named(measures: list[Measure]) -> dict[Measure, Measure]:
    """Measures with as much of task, metric and filter in their names as tells them apart."""
    tasks = Counter(m.task for m in measures)
    metrics = Counter((m.task, m.metric) for m in measures)
    filters = Counter((m.task, m.metric, m.filter) for m in measures)
    result = {}
    for m in measures:
        name = m.task
        if tasks[m.task] > 1:
            name += f"/{m.metric}"
        if metrics[m.task, m.metric] > 1:
            name += f"/{m.filter}"
        if filters[m.task, m.metric, m.filter] > 1 and m.language is not None:
            name += f"/{m.language}"
        result[m] = replace(m, name=name)
    return result


def is_mean(aggregation: Any) -> bool:
    """Whether a metric is the mean over documents of what the task gives it."""
    return getattr(aggregation, "__name__", "") == "mean"


def worst_value(measure: Measure) -> float | None:
    """The worst value that a metric can have; None where there is none, or nobody knows it."""
    low, high = METRIC_RANGES.get(measure.metric, (None, None))
    return low if measure.higher_is_better else high


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
