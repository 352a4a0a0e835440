"""A candidate with what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.journal.block_moments import BlockMoments
from evomerge.journal.comparisons import Sampled
from evomerge.score import SPLITS, Estimate, Moments, Split, estimates_of
from evomerge.space import Genome

ESTIMATED = "search_estimate"
"""In the place of "search" where only a sample of the documents is scored."""


@dataclass(frozen=True, slots=True)
class DerivedTerm:
    """A share of a derived value; see `evomerge.objectives.Term`.

    Attributes:
        measure: The measure's name.
        coefficient: What one more of it adds.
        candidate: Whose documents it is of; None: the candidate's own.
    """

    measure: str
    coefficient: float
    candidate: str | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """An objective that is not the mean of one measure.

    Attributes:
        value: In its own unit.
        standard_error: Of all of it; 0 where it is exact.
        num_documents: That it follows from.
        terms: What it follows from, to first order.
        own_error: Standard error of what no term says.
    """

    value: float
    standard_error: float
    num_documents: int
    terms: tuple[DerivedTerm, ...] = ()
    own_error: float = 0.0

    @property
    def estimate(self) -> Estimate:
        """The value as a score."""
        return Estimate(self.value, self.standard_error, self.num_documents)


@dataclass(slots=True)
class Measured:
    """A candidate's results on one split.

    Attributes:
        blocks: Moments by measure, by block number.
        num_blocks: Blocks of the whole split.
        parts: Parquet files with the documents, and the blocks that they are of.
        build_s: Seconds spent building.
        score_s: Seconds spent scoring.
        device: Where it was scored, "cpu" or "cuda"; None in journals that do not say.
        weights_sha256: Hash of the scored weights, where it was taken.
        same_as: The candidate with the same recipe whose result this is, if it was not scored
            itself.
        is_extra: Whether a person asked for it, of a candidate that was told by a sample.
        derived: What follows from the blocks, by objective.
    """

    num_blocks: int
    blocks: BlockMoments = field(default_factory=BlockMoments)
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    build_s: float = 0.0
    score_s: float = 0.0
    device: str | None = None
    weights_sha256: str | None = None
    same_as: str | None = None
    is_extra: bool = False
    derived: dict[str, Derived] = field(default_factory=dict)
    _scores: dict[str, Estimate] | None = field(default=None, compare=False, repr=False)

    @property
    def complete(self) -> bool:
        """Whether every block has a result."""
        return len(self.blocks) == self.num_blocks

    def scores(self) -> dict[str, Estimate]:
        """Estimates by measure, and by objective that is derived from them."""
        if self._scores is None:
            derived = {name: found.estimate for name, found in self.derived.items()}
            self._scores = estimates_of(self.blocks) | derived
        return self._scores

    def derive(self, derived: Mapping[str, Derived]) -> None:
        """Take in what follows from the blocks."""
        self._scores = None
        self.derived.update(derived)

    def add(self, moments: Mapping[int, Mapping[str, Moments]]) -> None:
        """Take in blocks; the first result of one counts."""
        self._scores = None
        for number, by_objective in moments.items():
            self.blocks.add(number, by_objective)

    def lose(self, part: str) -> None:
        """Forget the results whose documents are gone with a file."""
        self._scores = None
        self.derived.clear()
        for number in self.parts.pop(part, ()):
            self.blocks.remove(number)


@dataclass(slots=True)
class Candidate:
    """A recipe with its scores.

    Attributes:
        id: Its name in the run.
        origin: "asked" by the optimizer, "enqueued" by a person; compared with these: "baseline",
            "soup" (an average that was tried for the greedy soup), "random", "ablation" (another
            candidate without one of its parts); "preferred": asked for behind the search, for a
            preference.
        recipe_sha256: Hash of its recipe.
        genome: Its point in the search space, if it has one.
        ask: Number of the ask that proposed it.
        recipe_json: The recipe, for candidates that no genome describes.
        is_member: Whether the recipe is a model of the pool, unchanged.
        measured: Results by split.
        num_attempts: How often something went wrong over it.
        faults: That by split, block and blame.
        failures: Why it was given up, by split.
        phase: Number of the phase that it came into being in.
        told: Its place in the order of tells.
        started_at: When it came into being, seconds since 1970.
        ended_at: When its last result came.
        derives: Objectives that are to be derived once a split is scored.
        sampled: What is known by the sample of its comparison set, if it has one.
        num_tokens: Tokens run for it on search documents.
    """

    id: str
    origin: str
    recipe_sha256: str
    genome: Genome | None
    ask: int | None
    recipe_json: str | None
    started_at: float
    phase: int = 0
    is_member: bool = False
    measured: dict[Split, Measured] = field(default_factory=dict)
    num_attempts: int = 0
    faults: dict[tuple[Split, int, str], int] = field(default_factory=dict)
    failures: dict[Split, str] = field(default_factory=dict)
    told: int | None = None
    ended_at: float = 0.0
    derives: Mapping[Split, frozenset[str]] = field(default_factory=dict, compare=False)
    sampled: Sampled | None = None
    num_tokens: int = 0

    @property
    def is_searched(self) -> bool:
        """Whether it belongs to the search, and not to what that is compared with."""
        return self.origin in ("asked", "enqueued")

    @property
    def is_aside(self) -> bool:
        """Whether it only says something of others, and can be on no front."""
        return self.origin in ("random", "soup", "ablation")

    @property
    def failed(self) -> str | None:
        """Why it was given up, on the first split where it was; None where it was not."""
        return next(iter(self.failures.values()), None)

    def add(
        self, split: Split, num_blocks: int, moments: Mapping[int, Mapping[str, Moments]]
    ) -> Measured:
        """Take in a result; the first one of a block counts."""
        measured = self.measured.setdefault(split, Measured(num_blocks))
        measured.add(moments)
        if measured.complete:
            # One that was given up can be asked for again: it has its scores now.
            self.failures.pop(split, None)
        return measured

    def is_scored(self, split: Split) -> bool:
        """Whether the split is wholly scored."""
        return split in self.measured and self.measured[split].complete

    @property
    def is_searched_by_sample(self) -> bool:
        """Whether a sample of the search documents is all that is scored of them.

        One that had all of them, by a race or by its recipe's twin, has more than a sample.
        """
        is_sample = self.sampled is not None and self.id not in self.sampled.group.full
        whole = self.measured.get("search")
        return is_sample and (whole is None or (whole.is_extra and not whole.complete))

    @property
    def is_estimated(self) -> bool:
        """Whether its scores on search documents are estimates."""
        return not self.is_scored("search") and self.scores("search") is not None

    @property
    def shown_splits(self) -> dict[Split, str]:
        """Splits that it has scores of, and what they are called where people see them."""
        found: dict[Split, str] = {split: split for split in SPLITS if split in self.measured}
        return {**found, "search": ESTIMATED} if self.is_estimated else found

    def is_done_on(self, split: Split) -> bool:
        """Whether as many documents of a split are scored as are to be."""
        if split == "search" and self.is_searched_by_sample:
            assert self.sampled is not None
            return self.is_scored(split) or self.sampled.complete
        return self.is_scored(split)

    def parts(self, split: Split) -> list[str]:
        """Parquet files with the documents that are scored of a split."""
        if split == "search" and self.sampled is not None and not self.is_scored(split):
            return list(self.sampled.parts)
        return list(self.measured[split].parts)

    def scores(self, split: Split) -> dict[str, Estimate] | None:
        """Estimates by measure and objective, or None while they are not all there.

        Where only a sample of the search documents is scored, they are of `Approximation`.
        """
        if not self.is_scored(split):
            if split == "search" and self.sampled is not None and self.sampled.estimates:
                # A task whose metric needs all documents was measured on all of them.
                return {
                    name: each
                    if each.design_error
                    else Estimate(each.value, each.standard_error, each.num_documents)
                    for name, each in self.sampled.estimates.items()
                }
            return None
        return None if self.lacks(split) else self.measured[split].scores()

    def lacks(self, split: Split) -> frozenset[str]:
        """Objectives of a scored split that are not derived yet."""
        return self.derives.get(split, frozenset()) - self.measured[split].derived.keys()
