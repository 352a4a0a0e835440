"""What numbers of an objective are called, and how people see them."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.objectives.metric import METRIC_RANGES

UNITS = {
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity"), "perplexity"),
    "bits_per_byte": "bits per byte",
    "answer_tokens": "tokens",
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "hops": "layers",
    "distinct_layers": "layers",
    "parameters": "parameters",
    "relative_to_expert": "of the expert's",
}
"""By metric or, of objectives that are no metric, by kind."""

POINTS = "points"
"""Hundredths, in which differences of shares are told."""


@dataclass(frozen=True)
class Unit:
    """The unit of an objective.

    Attributes:
        name: What it is called; empty where nothing is known.
        is_share: Whether values are shares, from 0 to 1.
    """

    name: str = ""
    is_share: bool = False

    def show(self, value: float, *, like: float | None = None, sign: str = "") -> str:
        """A value in digits.

        Args:
            value: In the unit.
            like: The value whose digits are kept, where this one is an error of it.
            sign: "+" shows the sign of positive values too.
        """
        size = abs(value if like is None else like)
        digits = 3 if self.is_share or size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
        return f"{value:{sign},.{digits}f}"

    def amount(self, value: float) -> str:
        """A difference, with its sign."""
        if self.is_share:
            return f"{100.0 * value:+.1f} {POINTS}"
        return f"{self.show(value, sign='+')} {self.name}".rstrip()

    def brief(self, value: float, low: float, high: float) -> str:
        """A difference with its 95 % interval, in `of_differences`: "+3.1 (1.0 to 5.2)"."""
        if self.is_share:
            return f"{100.0 * value:+.1f} ({100.0 * low:+.1f} to {100.0 * high:+.1f})"
        size = max(map(abs, (low, high)))
        shown, first, last = (self.show(each, like=size, sign="+") for each in (value, low, high))
        return f"{shown} ({first} to {last})"

    @property
    def of_differences(self) -> str:
        """The unit in which differences are told."""
        return POINTS if self.is_share else self.name

    def change(self, value: float, low: float, high: float) -> str:
        """A difference with its 95 % interval, as numbers change: the sign is the value's own."""
        if self.is_share:
            value, low, high = (100.0 * each for each in (value, low, high))
            return f"{value:+.1f} {POINTS}, 95 % interval {low:+.1f} to {high:+.1f}"
        size = max(map(abs, (low, high)))
        shown, first, last = (self.show(each, like=size, sign="+") for each in (value, low, high))
        name = f" {self.name}" if self.name else ""
        return f"{shown}{name}, 95 % interval {first} to {last}"


def unit_of(kind: str, metric: str, low: float | None = None, high: float | None = None) -> Unit:
    """The unit of an objective.

    Args:
        kind: Of the objective.
        metric: Its metric, where it is one or a mean of one.
        low: Least value, where it is known.
        high: Greatest value.
    """
    if kind == "metric" and metric in METRIC_RANGES:
        low, high = METRIC_RANGES[metric]
    name = UNITS.get(kind) or UNITS.get(metric, "")
    return Unit(name, is_share=not name and (low, high) == (0.0, 1.0))
