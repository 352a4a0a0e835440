"""The front of a run, as its journal has it: who is on it, how good it is, whom to pick.

Values are in the metrics' own units, on validation documents: means of measurement and surrogate
weighted by their precision where a trusted surrogate exists, means of the measurement elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from evomerge.errors import InputError, closest
from evomerge.optimize.fronts import knee, preferred, violations
from evomerge.score import Objective

Place = Literal["front", "near", "behind", "over a limit"]
"""`near`: dominated, but by nobody beyond the noise of the documents."""


MOST_WEIGHT = 1e6
"""Of a preference: sums of more overflow."""


@dataclass(frozen=True)
class Entry:
    """A candidate that was scored on validation.

    Attributes:
        candidate: Its id.
        place: Where it stands.
        rank: Pareto rank among those that keep every limit, from 0; None for others.
        crowding: Crowding distance on the front; None at its ends and for all behind it.
        values: By objective.
        deviations: Standard deviations of the values.
        measured: Plain means on validation documents.
        predicted: What the surrogates say of it on search documents, from everybody else's search
            scores, with the ends of the 95 % interval; empty where there are none.
    """

    candidate: str
    place: Place
    rank: int | None
    crowding: float | None
    values: dict[str, float]
    deviations: dict[str, float]
    measured: dict[str, float]
    predicted: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Front:
    """See the module.

    Attributes:
        entries: Everybody who was scored on validation; the front first.
        limits: Worst value that is allowed by objective, where there is one.
        reference: Of the hypervolumes, by objective.
        hypervolume: Of the front, in the product of the objectives' units.
        baseline_hypervolume: Of the baselines alone.
        baseline_igd_plus: How far the baselines are behind this front on average (IGD+).
        baseline_gd_plus: The same, averaged over the baselines' own front (GD+).
        win_rate: Share of preferences, even over the simplex, for which the front's best is better
            than the best baseline; ties count half.
        knee: The member that gives up least of everything; where nobody keeps every limit, who
            comes nearest.
        surrogates: Their quality by objective; empty where none could be fitted.
    """

    entries: tuple[Entry, ...]
    limits: dict[str, float]
    reference: dict[str, float]
    hypervolume: float
    baseline_hypervolume: float
    baseline_igd_plus: float | None
    baseline_gd_plus: float | None
    win_rate: float | None
    knee: str
    surrogates: dict[str, dict[str, Any]]

    @property
    def members(self) -> list[Entry]:
        """Who is on it."""
        return [entry for entry in self.entries if entry.place == "front"]

    @property
    def near(self) -> list[Entry]:
        """Who is dominated within noise only."""
        return [entry for entry in self.entries if entry.place == "near"]

    def best_of(self, candidates: Sequence[str], objectives: list[Objective]) -> str:
        """The knee of the least Pareto rank among these; of those over a limit the nearest."""
        rows = [entry for entry in self.entries if entry.candidate in candidates]
        ranks = [entry.rank for entry in rows if entry.rank is not None]
        if ranks:
            rows = [entry for entry in rows if entry.rank == min(ranks)]
        losses = np.array([[o.loss(e.values[o.name]) for o in objectives] for e in rows])
        if ranks:
            return rows[knee(losses)].candidate
        limits = [
            o.loss(self.limits[o.name]) if o.name in self.limits else None for o in objectives
        ]
        return rows[int(np.argmin(violations(losses, limits)))].candidate

    def to_dict(self) -> dict[str, Any]:
        """For the journal and for machines."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Front:
        """What `to_dict` gave, also once it has been JSON."""
        entries = tuple(
            Entry(
                **{
                    **entry,
                    "predicted": {name: tuple(ends) for name, ends in entry["predicted"].items()},
                }
            )
            for entry in data["entries"]
        )
        return Front(**{**data, "entries": entries})

    def pick(
        self,
        objectives: list[Objective],
        prefer: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
    ) -> str:
        """The member that is best for a preference, among those that are good enough.

        Args:
            objectives: The run's.
            prefer: Weights of the objectives' values, in their own units; those that are not named
                have none. None: the knee of those that are good enough.
            at_least: Worst values that will do, by objective: of a metric that is minimized the
                greatest, of others the least.

        Raises:
            InputError: A name is no objective, or no member is good enough.
        """
        by_name = {objective.name: objective for objective in objectives}
        for option, given in (("prefer", prefer), ("at-least", at_least)):
            for name in given or {}:
                if name not in by_name:
                    raise InputError(f"--{option}: no objective {name!r}; {closest(name, by_name)}")
        if prefer is not None:
            check_preference(prefer)
        bounds = {name: by_name[name].loss(value) for name, value in (at_least or {}).items()}
        members = [
            entry
            for entry in self.members
            if all(by_name[n].loss(entry.values[n]) <= bound for n, bound in bounds.items())
        ]
        if not self.members:
            raise InputError(f"nobody keeps every limit; {self.knee} comes nearest")
        if not members:
            best = {n: min(by_name[n].loss(e.values[n]) for e in self.members) for n in bounds}
            raise InputError(
                "--at-least: nobody on the front is that good; the best of it, each by itself: "
                + ", ".join(f"{n} {by_name[n].value(loss):.4f}" for n, loss in best.items())
            )
        losses = np.array([[o.loss(e.values[o.name]) for o in objectives] for e in members])
        if prefer is None:
            return members[knee(losses)].candidate
        weights = [prefer.get(objective.name, 0.0) for objective in objectives]
        return members[preferred(losses, weights)].candidate


def check_preference(weights: Mapping[str, float]) -> None:
    """Refuse weights that prefer nothing.

    Raises:
        InputError: One is below 0 or has no end, or all are 0.
    """
    values = weights.values()
    if not all(0.0 <= value <= MOST_WEIGHT for value in values) or not any(values):
        raise InputError(
            f"--prefer: weights are 0 or more, {MOST_WEIGHT:g} at most, and one of them is above 0"
        )


def read_weights(option: str, text: str | None) -> dict[str, float] | None:
    """Numbers by objective, from "a=0.7,b=0.3".

    Raises:
        InputError: It is not of this form.
    """
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise InputError(f"{option} {text!r}: expected OBJECTIVE=NUMBER, separated by commas")
        if name in weights:
            raise InputError(f"{option} {text!r}: {name!r} is there twice")
        weights[name] = value
    return weights
