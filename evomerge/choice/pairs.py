"""Two candidates of one run beside each other, document by document."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.choice.results import Results
from evomerge.errors import InputError, closest
from evomerge.journal import Candidate
from evomerge.score import SPLITS, Difference, Estimate, Split, paired_difference


@dataclass(frozen=True)
class Pair:
    """An objective of two candidates.

    Attributes:
        objective: Its name.
        first: The first candidate's score.
        second: The second's.
        gain: How much better the second is; paired by document.
        better: Documents on which the second is better, by task.
        worse: Documents on which it is worse.
    """

    objective: str
    first: Estimate
    second: Estimate
    gain: Difference
    better: dict[str, list[int]]
    worse: dict[str, list[int]]


def candidate_of(results: Results, name: str) -> Candidate:
    """A candidate by its id.

    Raises:
        InputError: The run has none of this id.
    """
    candidates = results.state.candidates
    if name not in candidates:
        raise InputError(
            f"{results.run_dir} has no candidate {name!r}; {closest(name, candidates)}"
        )
    return candidates[name]


def common_split(results: Results, first: str, second: str) -> Split:
    """The split that says most of both: holdout where it was opened for both, else validation.

    Raises:
        InputError: They are not scored on all documents of one split.
    """
    both = [candidate_of(results, name) for name in (first, second)]
    for split in reversed(SPLITS):
        is_open = split != "holdout" or all(
            candidate.id in results.state.holdout_opened for candidate in both
        )
        if is_open and all(
            candidate.is_scored(split) and not candidate.lacks(split) for candidate in both
        ):
            return split
    run_dir = results.run_dir
    missing = next((c.id for c in both if not c.is_scored("validation")), None)
    remedy = (
        f"`evomerge resume {run_dir}` makes what is lacking"
        if missing is None
        else f"`evomerge score --run {run_dir} --candidate {missing} --split validation` scores one"
    )
    raise InputError(f"{first} and {second} are not scored on all documents of one split\n{remedy}")


def compare_candidates(results: Results, first: str, second: str) -> tuple[Split, list[Pair]]:
    """Compare two candidates on the documents of the split that says most of both.

    Raises:
        InputError: The run has no such candidates, or they have no split in common.
    """
    split = common_split(results, first, second)
    ours = results.state.candidates[first].scores(split)
    theirs = results.state.candidates[second].scores(split)
    assert ours is not None and theirs is not None
    pairs = []
    shares = zip(results.loss_shares(first, split), results.loss_shares(second, split), strict=True)
    for objective, (our, their) in zip(results.objectives, shares, strict=True):
        better: dict[str, list[int]] = {}
        worse: dict[str, list[int]] = {}
        for task, losses in our.documents.items():
            others = their.documents.get(task, {})
            changes = {d: losses[d] - others[d] for d in sorted(losses.keys() & others.keys())}
            better[task] = [document for document, change in changes.items() if change > 0.0]
            worse[task] = [document for document, change in changes.items() if change < 0.0]
        pairs.append(
            Pair(
                objective.name,
                ours[objective.name],
                theirs[objective.name],
                paired_difference([our], [their], [1.0]),
                better,
                worse,
            )
        )
    return split, pairs
