"""How much of a gain is left on documents that did not steer the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.choice.results import Results
from evomerge.score import Estimate, Split, combine_shares
from evomerge.score.statistics import Z_95


@dataclass(frozen=True)
class Shrinkage:
    """What a gain over the models of the pool shrinks by from one split to the next.

    Attributes:
        of: "finalists", whose mean it is, or "chosen".
        candidates: Who that is.
        first: The split that they were chosen on.
        second: The next one.
        gain_first: Mean gain over the mean of base and experts on the first split, combined score.
        gain_second: The same on the second.
        value: By how much it shrinks.
        low: Of the 95 % interval; the splits' documents are independent of each other.
        high: Of it.
    """

    of: str
    candidates: tuple[str, ...]
    first: Split
    second: Split
    gain_first: float
    gain_second: float
    value: float
    low: float
    high: float

    @property
    def is_more_than_errors(self) -> bool:
        """Whether it is more than the standard errors explain."""
        return self.low > 0.0


def shrinkages(results: Results) -> list[Shrinkage]:
    """From search to validation of the finalists, and from validation to holdout of the chosen."""
    decided = results.state.decided
    stages = [what for what in decided if what.split("-")[0] == "finalists"]
    found = [_shrinkage(results, "finalists", decided[stages[-1]], "search")] if stages else []
    chosen = decided.get("chosen")
    if chosen is not None and chosen not in results.parents:
        found.append(_shrinkage(results, "chosen", [chosen], "validation"))
    return [each for each in found if each is not None]


def _shrinkage(
    results: Results, of: str, candidates: Sequence[str], first: Split
) -> Shrinkage | None:
    second: Split = "validation" if first == "search" else "holdout"
    names = [n for n in candidates if _is_on(results, n, first) and _is_on(results, n, second)]
    parents = [n for n in results.parents if _is_on(results, n, first)]
    parents = [n for n in parents if _is_on(results, n, second)]
    if not names or not parents:
        return None
    before, after = (_mean_gain(results, names, parents, split) for split in (first, second))
    value = before.value - after.value
    reach = Z_95 * math.hypot(before.standard_error, after.standard_error)
    if math.isnan(reach):
        return None
    return Shrinkage(
        of,
        tuple(names),
        first,
        second,
        before.value,
        after.value,
        value,
        value - reach,
        value + reach,
    )


def _is_on(results: Results, name: str, split: Split) -> bool:
    if split == "holdout" and name not in results.state.holdout_opened:
        return False
    return results.combined(name, split) is not None


def _mean_gain(
    results: Results, names: Sequence[str], parents: Sequence[str], split: Split
) -> Estimate:
    """Mean gain of some candidates over the mean of some models, document by document."""
    theirs = [results.loss_shares(name, split) for name in parents]
    shares, preferences = [], []
    for name in names:
        ours = results.loss_shares(name, split)
        for parent in theirs:
            # Losses: who gains has the smaller one.
            shares += [other.minus(own) for other, own in zip(parent, ours, strict=True)]
            preferences += [objective.preference for objective in results.objectives]
    return combine_shares(shares, preferences)
