"""How much of a score is left on documents that did not steer the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.choice.results import Results
from evomerge.score import Estimate, Split, combine_shares
from evomerge.score.statistics import Z_95

_NEXT: dict[Split, Split] = {"search": "validation", "validation": "holdout"}


@dataclass(frozen=True)
class Shrinkage:
    """What a combined score shrinks by from one split to the next.

    Attributes:
        of: "finalists", whose mean it is, or "chosen".
        candidates: Who that is.
        is_gain: Whether it is the gain over the mean of base and experts, and not the score itself:
            whichever is known better. Of the one, documents that are harder for everybody are
            taken out; the other does not depend on what base and experts make of them.
        first: The split that they were chosen on.
        second: The next one.
        value_first: The score, or the gain, on the first split.
        value_second: The same on the second.
        value: By how much it shrinks.
        low: Of the 95 % interval; the splits' documents are independent of each other.
        high: Of it.
    """

    of: str
    candidates: tuple[str, ...]
    is_gain: bool
    first: Split
    second: Split
    value_first: float
    value_second: float
    value: float
    low: float
    high: float


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
    second = _NEXT[first]
    names = [n for n in candidates if _is_on(results, n, first) and _is_on(results, n, second)]
    parents = [n for n in results.parents if _is_on(results, n, first)]
    parents = [n for n in parents if _is_on(results, n, second)]
    if not names:
        return None
    ways = [_shrinks(results, of, names, parents, first)] if parents else []
    ways.append(_shrinks(results, of, names, [], first))
    # What is known better is told by the errors, which the values have no part in.
    known = [way for way in ways if not math.isnan(way.low)]
    return min(known, key=lambda way: way.high - way.low, default=None)


def _shrinks(
    results: Results, of: str, names: Sequence[str], parents: Sequence[str], first: Split
) -> Shrinkage:
    second = _NEXT[first]
    before, after = (_mean(results, names, parents, split) for split in (first, second))
    value = before.value - after.value
    errors = before.standard_error, after.standard_error
    # Documents that all score alike say nothing of how others would.
    reach = Z_95 * math.hypot(*errors) if all(errors) else math.nan
    return Shrinkage(
        of=of,
        candidates=tuple(names),
        is_gain=bool(parents),
        first=first,
        second=second,
        value_first=before.value,
        value_second=after.value,
        value=value,
        low=value - reach,
        high=value + reach,
    )


def _is_on(results: Results, name: str, split: Split) -> bool:
    if split == "holdout" and name not in results.state.holdout_opened:
        return False
    # Of documents that are foretold nobody knows whether they were too easy.
    candidate = results.state.candidates[name]
    return candidate.is_scored(split) and candidate.scores(split) is not None


def _mean(results: Results, names: Sequence[str], others: Sequence[str], split: Split) -> Estimate:
    """Mean score of some candidates, or their gain over the mean of some others, by document."""
    theirs = [results.loss_shares(name, split) for name in others]
    preferences = [objective.preference for objective in results.objectives]
    shares = []
    for name in names:
        ours = results.loss_shares(name, split)
        for other in theirs:
            shares += [own.minus(their) for own, their in zip(ours, other, strict=True)]
        if not theirs:
            shares += ours
    loss = combine_shares(shares, preferences * (len(shares) // len(preferences)))
    return Estimate(-loss.value, loss.standard_error, loss.num_documents)
