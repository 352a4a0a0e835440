"""The columns of the final table: what each shows, of what metric, and which way is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.choice.front import Entry
from evomerge.choice.results import Results
from evomerge.objectives.units import Unit
from evomerge.score import SPLITS, Difference, Estimate, Split

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How the numbers of an objective, or of the combined score, are shown.

    Attributes:
        unit: Theirs.
        metric: What they are of; empty where several metrics are combined.
        higher_is_better: Their direction.
        is_turned: Whether they are kept with the other sign, as the combined score is of
            objectives that are minimized.
    """

    unit: Unit
    metric: str
    higher_is_better: bool
    is_turned: bool = False

    @property
    def words(self) -> str:
        """Metric, direction and unit: "acc ↑ (share)"."""
        arrow = "↑" if self.higher_is_better else "↓"
        unit = "share" if self.unit.is_share else self.unit.name
        if not self.metric:
            return f"{unit} {arrow}"
        is_said = all(word in self.metric for word in unit.split())
        return f"{self.metric} {arrow}" + ("" if is_said else f" ({unit})")

    def show(self, estimate: dict[str, Any]) -> str:
        """A score with its standard error; `~` before one that is an estimate."""
        mark = "~" if "design_error" in estimate else ""
        value = self.value(estimate["value"])
        error = self.unit.show(estimate["standard_error"], like=value)
        return f"{mark}{self.unit.show(value)} ±{error}"

    def show_estimate(self, estimate: Estimate) -> str:
        """See `show`."""
        return self.show(asdict(estimate))

    def change_of(self, gain: Difference) -> str:
        """See `change`."""
        return self.change(asdict(gain))

    def value(self, kept: float) -> float:
        """A value as the metric has it."""
        return -kept if self.is_turned else kept

    def change(self, gain: dict[str, Any]) -> str:
        """A paired difference of which positive is better, as the numbers themselves change."""
        value, low, high = gain["value"], gain["low"], gain["high"]
        if not self.higher_is_better:
            value, low, high = -value, -high, -low
        return self.unit.change(value, low, high)


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        heading: A split, or an objective, which is shown on holdout.
        scale: Of its numbers; None: they have no unit.
        show: Gives the cell of a row.
    """

    heading: str
    scale: Scale | None
    show: Callable[[Row], str]

    @property
    def words(self) -> str:
        """Metric, direction and unit."""
        return "" if self.scale is None else self.scale.words


def score_words(results: Results, candidate: str, split: Split) -> str | None:
    """A candidate's combined score, or its objectives where they have several units.

    Returns:
        None of a candidate without a score.
    """
    combined, scores = (
        results.combined(candidate, split),
        results.state.candidates[candidate].scores(split),
    )
    if combined is None or scores is None:
        return None
    scale = scale_in(results, None)
    if scale is not None:
        return scale.show(asdict(combined))
    names = [objective.name for objective in results.objectives if objective.preference]
    scales = {name: scale_in(results, name) for name in names[:NUM_SHOWN]}
    words = [f"{n} {s.show(asdict(scores[n]))}" for n, s in scales.items() if s is not None]
    return ", ".join([*words, "..."] if len(names) > NUM_SHOWN else words)


NUM_SHOWN = 3
"""Objectives in a line of progress."""


def scale_in(results: Results, objective: str | None) -> Scale | None:
    """As `scale_of`, of a run without its final table."""
    found = {"units": results.units, "combined_unit": results.combined_unit}
    return scale_of(found, objective)


def scale_of(table: Mapping[str, Any], objective: str | None) -> Scale | None:
    """How an objective's numbers are shown, or the combined score's.

    Args:
        table: The final table, or its "units" and "combined_unit".
        objective: Its name; None: the combined score.

    Returns:
        None where objectives of several units or directions are combined: their sum has no unit.
    """
    found = table["combined_unit"] if objective is None else table["units"][objective]
    if found is None:
        return None
    unit = Unit(found["unit"], found["is_share"])
    is_turned = objective is None and not found["higher_is_better"]
    return Scale(unit, found["metric"], found["higher_is_better"], is_turned)


def columns_of(table: dict[str, Any], split: Split = "holdout") -> list[Column]:
    """Combined scores by split, where they have a unit, and each objective on one split."""
    combined = scale_of(table, None)
    columns = []
    if combined is not None:
        columns = [Column(each, combined, _show(combined, each, None)) for each in SPLITS]
    names = table["objectives"]
    if combined is None or len(names) > 1:
        for name in names:
            scale = scale_of(table, name)
            assert scale is not None
            columns.append(Column(name, scale, _show(scale, split, name)))
    return columns


def front_columns(table: dict[str, Any]) -> list[Column]:
    """Every objective, of rows that `row_of` makes."""
    columns = []
    for name in table["objectives"]:
        scale = scale_of(table, name)
        assert scale is not None
        columns.append(Column(name, scale, _show(scale, "validation", name)))
    return columns


def row_of(entry: Entry) -> Row:
    """A candidate of the front: its values on validation, with their deviations."""
    objectives = {
        name: {"value": value, "standard_error": entry.deviations[name]}
        for name, value in entry.values.items()
    }
    return {"candidate": entry.candidate, "splits": {"validation": {"objectives": objectives}}}


def part_columns(table: dict[str, Any], group: str) -> list[Column]:
    """The tasks of a group, on holdout."""
    scale = scale_of(table, group)
    assert scale is not None
    return [Column(name, scale, _show(scale, "holdout", name)) for name in table["groups"][group]]


def rows_of(table: dict[str, Any]) -> list[Row]:
    """The rows that people see: models, and the best parent of each objective together."""
    if "synergy" not in table:
        return list(table["rows"])
    together = {"candidate": "best parent of each", "failed": None}
    return [*table["rows"], together | {"splits": table["synergy"]["splits"]}]


def _show(scale: Scale, split: str, objective: str | None) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        if split not in row["splits"]:
            return "-"
        entry = row["splits"][split]
        return scale.show(
            entry["combined"] if objective is None else entry["objectives"][objective]
        )

    return show
