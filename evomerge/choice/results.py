"""What a run has found: combined scores, comparisons, the final table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evomerge.choice.front import Front
from evomerge.journal.candidate import Derived
from evomerge.journal.documents import read_log_likelihoods, read_values
from evomerge.journal.state import RunState
from evomerge.objectives import Measure
from evomerge.optimize import Goal
from evomerge.optimize.fronts import violations
from evomerge.score import (
    SPLITS,
    Difference,
    Estimate,
    Objective,
    Share,
    Split,
    combine,
    combine_shares,
    paired_difference,
)
from evomerge.score.statistics import Z_95


class Results:
    """Reads a run's state; objectives and preferences are those that the run began with.

    Args:
        run_dir: The run folder, for document rows.
        state: What its journal says.
    """

    def __init__(self, run_dir: Path, state: RunState) -> None:
        self.run_dir = run_dir
        self.state = state
        self._objectives: list[Objective] = []
        self._read_from: object = None
        self._paired: dict[tuple[str, Split], Estimate] = {}

    @property
    def objectives(self) -> list[Objective]:
        """What the run measures."""
        started = self.state.started["objectives"]
        if self._read_from is not started:
            self._read_from = started
            self._objectives = [Objective(**data) for data in started]
        return self._objectives

    @property
    def monitors(self) -> list[Objective]:
        """What the run measures of finalists and baselines, and is not steered by."""
        return [Objective(**data) for data in self.state.started.get("monitors", ())]

    def combined(self, candidate: str, split: Split) -> Estimate | None:
        """Preference-weighted mean of a candidate's objectives, or None where it is not scored.

        Objectives that are minimized count negatively.
        """
        scores = self.state.candidates[candidate].scores(split)
        if scores is None:
            return None
        estimates = []
        for objective in self.objectives:
            measured = scores[objective.name]
            value = -objective.loss(measured.value)
            estimates.append(replace(measured, value=value))
        if not self.state.candidates[candidate].is_scored(split):
            return combine(estimates, self._preferences, together=self._share_tasks())
        combined = combine(estimates, self._preferences)
        if not self._shares_documents(candidate, split):
            return combined
        # Two objectives of one task vary together: their moments alone do not say how.
        key = candidate, split
        if key not in self._paired:
            shares = self.loss_shares(candidate, split)
            self._paired[key] = combine_shares(shares, self._preferences)
        paired = self._paired[key]
        return Estimate(combined.value, paired.standard_error, paired.num_documents)

    @property
    def _preferences(self) -> list[float]:
        return [objective.preference for objective in self.objectives]

    def _share_tasks(self) -> bool:
        """Whether two objectives that count may follow from documents of one task."""
        counted = [o for o in self.objectives if o.preference]
        tasks = [o.task for o in counted if o.task]
        return len(tasks) > len(set(tasks)) or len(counted) - len(tasks) > 1

    def _shares_documents(self, candidate: str, split: Split) -> bool:
        """Whether two objectives that count follow from documents of one task."""
        derived = self.state.candidates[candidate].measured[split].derived
        measures = self.measures
        counted: list[str] = []
        for objective in self.objectives:
            if not objective.preference:
                continue
            if objective.task:
                counted.append(objective.task)
            else:
                terms = derived[objective.name].terms
                counted += {measures[term.measure].task for term in terms}
        return len(counted) > len(set(counted))

    def best(self, candidates: Sequence[str], split: Split) -> str | None:
        """The candidate with the best combined score, limits aside; the earliest of equals."""
        scored = [(e.value, c) for c in candidates if (e := self.combined(c, split)) is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def ranked(
        self, candidates: Sequence[str], split: Split, *, cautious: bool = False
    ) -> list[str]:
        """Those that are scored, the best first; who is over a limit comes last, by how far.

        Args:
            candidates: Those to rank.
            split: By whose documents.
            cautious: Take estimates by their lower bounds.
        """
        limits = [goal.limit for goal in self.goals(split)]
        keys = {}
        for name in candidates:
            combined, losses = self.combined(name, split), self.losses(name, split)
            if combined is not None and losses is not None:
                value = lower_bound(combined) if cautious else combined.value
                keys[name] = float(violations(losses[0], limits)[0]), -value
        return sorted(keys, key=lambda name: keys[name])

    def difference(self, first: str, second: str, split: Split) -> Difference:
        """Paired difference of two candidates' combined scores on a split's documents."""
        return paired_difference(
            # Losses: the better of two has the smaller one.
            self.loss_shares(second, split),
            self.loss_shares(first, split),
            self._preferences,
        )

    def differences(self, first: str, second: str, split: Split) -> dict[str, Difference]:
        """Paired difference of two candidates on a split's documents, of each objective."""
        pairs = zip(
            self.objectives,
            self.loss_shares(second, split),
            self.loss_shares(first, split),
            strict=True,
        )
        return {
            objective.name: paired_difference([theirs], [ours], [1.0])
            for objective, theirs, ours in pairs
        }

    @property
    def parents(self) -> list[str]:
        """Ids of the baselines that are a model of the pool itself: the base and the experts."""
        members = [c for c in self.state.of_origin("baseline") if c.is_member]
        # The greedy soup of one expert is that expert again.
        distinct: dict[str, str] = {}
        for candidate in members:
            distinct.setdefault(candidate.recipe_sha256, candidate.id)
        return list(distinct.values())

    @property
    def front(self) -> Front | None:
        """The front, once it is decided; a search with one objective has none."""
        decided = self.state.decided.get("front")
        return None if decided is None else Front.from_dict(decided)

    @property
    def finds_front(self) -> bool:
        """Whether the last phase's optimizer looks for a front; earlier releases did not say."""
        return bool(self.state.started["phases"][-1].get("finds_front", self.front is not None))

    def losses(self, candidate: str, split: Split) -> tuple[list[float], list[float]] | None:
        """A candidate's losses and standard errors, one for each objective."""
        scores = self.state.candidates[candidate].scores(split)
        if scores is None:
            return None
        estimates = [(o, scores[o.name]) for o in self.objectives]
        return [o.loss(e.value) for o, e in estimates], [e.standard_error for _, e in estimates]

    def goals(self, split: Split) -> list[Goal]:
        """The objectives as optimizers see them, with what follows from the parents' scores."""
        parents = [losses[0] for name in self.parents if (losses := self.losses(name, split))]
        return goals(self.objectives, parents)

    def loss_shares(self, candidate: str, split: Split) -> list[Share]:
        """For each objective the loss, with the documents that it follows from."""
        return [self._share(candidate, split, objective) for objective in self.objectives]

    def _share(self, candidate: str, split: Split, objective: Objective) -> Share:
        if not objective.task:
            found = self.state.candidates[candidate].measured[split].derived[objective.name]
            return self.derived_share(candidate, split, found, objective.loss(1.0))
        values = self.documents(candidate, split, objective)
        losses = {document: objective.loss(value) for document, value in values.items()}
        return Share.of_mean(objective.task, losses)

    def documents(
        self, candidate: str, split: Split, measure: Measure | Objective
    ) -> dict[int, float]:
        """Values of a measure by document."""
        parts = self.state.candidates[candidate].parts(split)
        return read_values(self.run_dir, parts, candidate, split, measure.task, measure.column)

    def log_likelihoods(self, candidate: str, split: Split, task: str) -> dict[int, list[float]]:
        """Those of choices by document."""
        parts = self.state.candidates[candidate].parts(split)
        return read_log_likelihoods(self.run_dir, parts, candidate, split, task)

    def derived_share(
        self, candidate: str, split: Split, found: Derived, sign: float = 1.0
    ) -> Share:
        """A derived value, times a sign, with the documents of its terms."""
        measures = self.measures
        documents: dict[str, dict[int, float]] = {}
        for term in found.terms:
            measure = measures[term.measure]
            values = self.documents(term.candidate or candidate, split, measure)
            added = documents.setdefault(measure.task, dict.fromkeys(values, 0.0))
            for document, value in values.items():
                added[document] += sign * term.coefficient * value
        return Share.of_value(sign * found.value, documents, found.own_error)

    @property
    def measures(self) -> dict[str, Measure | Objective]:
        """What workers measure, by name."""
        entries = self.state.started.get("measures")
        if entries is None:
            # Runs of earlier releases measured their objectives.
            return {objective.name: objective for objective in self.objectives}
        return {entry["name"]: Measure(**entry) for entry in entries}

    def table(self) -> dict[str, Any]:
        """The final table, for machines.

        Holdout scores stand only where the holdout was opened.
        """
        state = self.state
        chosen = state.decided.get("chosen")
        names = [c.id for c in state.of_origin("baseline")]
        names += [name for role in ("random", "simplest") if (name := state.decided.get(role))]
        rows = [self.row(name) for name in dict.fromkeys([chosen, *names] if chosen else names)]
        comparisons = []
        for role in ("best_parent", "best_baseline", "random", "simplest"):
            rival = state.decided.get(role)
            if (
                chosen
                and rival
                and rival != chosen
                and self._on_holdout(chosen)
                and self._on_holdout(rival)
            ):
                difference = self.difference(chosen, rival, "holdout")
                comparisons.append(
                    {
                        "role": role,
                        "candidate": rival,
                        **asdict(difference),
                        "distinguishable": difference.distinguishable,
                        "objectives": {
                            name: asdict(each)
                            for name, each in self.differences(chosen, rival, "holdout").items()
                        },
                    }
                )
        return {
            "name": state.started["name"],
            "seed": state.started["seed"],
            "chosen": chosen,
            "parents": self.parents,
            "num_candidates": state.num_searched,
            "num_failed": state.num_failed,
            "search_seconds": state.elapsed_s,
            "objectives": [objective.name for objective in self.objectives],
            "units": self.units,
            "combined_unit": self.combined_unit,
            "rows": rows,
            "comparisons": comparisons,
            "front": state.decided.get("front"),
            **{name: value for name, value in self._more(chosen).items() if value},
        }

    @property
    def units(self) -> dict[str, dict[str, Any]]:
        """Metric, unit and direction of each objective."""
        return {o.name: _unit(o) for o in (*self.objectives, *self.monitors)}

    @property
    def combined_unit(self) -> dict[str, Any] | None:
        """Metric, unit and direction of the combined score; None where objectives have several."""
        counted = [_unit(o) for o in self.objectives if o.preference]
        first = counted[0]
        metrics = {each["metric"] for each in counted}
        is_known = first["unit"] or first["is_share"] or len(metrics) == 1
        if not is_known or any(first | {"metric": o["metric"]} != o for o in counted):
            return None
        return first | {"metric": metrics.pop() if len(metrics) == 1 else ""}

    def _more(self, chosen: str | None) -> dict[str, Any]:
        """What stands in the table where there is some: earlier choices, groups, held-out tasks."""
        return {
            "earlier": list(self.state.earlier),
            "groups": {
                objective.name: list(objective.parts)
                for objective in (*self.objectives, *self.monitors)
                if objective.parts
            },
            "monitors": self._held_out(chosen, self.state.decided.get("best_parent")),
        }

    def _held_out(self, chosen: str | None, rival: str | None) -> list[dict[str, Any]]:
        """What nothing was steered by: the chosen model beside the best parent, on holdout."""
        found = []
        for objective in self.monitors:
            entry: dict[str, Any] = {
                "name": objective.name,
                "metric": objective.metric,
                "higher_is_better": objective.higher_is_better,
            }
            if chosen and rival and self._on_holdout(chosen) and self._on_holdout(rival):
                theirs, ours = (
                    [self._share(name, "holdout", objective)] for name in (rival, chosen)
                )
                difference = paired_difference(theirs, ours, [1.0])
                for role, name in (("chosen", chosen), ("best_parent", rival)):
                    scores = self.state.candidates[name].scores("holdout")
                    assert scores is not None
                    entry[role] = {"candidate": name, **asdict(scores[objective.name])}
                entry["gain"] = {
                    **asdict(difference),
                    "distinguishable": difference.distinguishable,
                }
            found.append(entry)
        return found

    def _on_holdout(self, candidate: str) -> bool:
        return self.state.candidates[candidate].scores("holdout") is not None

    def row(self, name: str) -> dict[str, Any]:
        """A candidate's scores by split; those on holdout where it was opened."""
        candidate = self.state.candidates[name]
        splits: dict[str, Any] = {}
        for split in SPLITS:
            scores = candidate.scores(split)
            if scores is None or (split == "holdout" and name not in self.state.holdout_opened):
                continue
            combined = self.combined(name, split)
            assert combined is not None
            splits[split] = {
                "combined": asdict(combined),
                "objectives": {n: asdict(estimate) for n, estimate in scores.items()},
            }
        return {"candidate": name, "failed": candidate.failed, "splits": splits}


def _unit(objective: Objective) -> dict[str, Any]:
    return {
        "metric": objective.metric,
        "unit": objective.unit.name,
        "is_share": objective.unit.is_share,
        "higher_is_better": objective.higher_is_better,
    }


def lower_bound(score: Estimate) -> float:
    """A score that was measured as it is; of one that was estimated the 95 % interval's end."""
    return score.value - Z_95 * score.design_error


def goals(objectives: Sequence[Objective], parents: Sequence[Sequence[float]]) -> list[Goal]:
    """The objectives as optimizers see them.

    Args:
        objectives: What is measured.
        parents: Losses of base and experts, as far as they are known.
    """
    result = []
    for number, o in enumerate(objectives):
        losses = [loss[number] for loss in parents]
        limit = None if o.limit is None else o.loss(o.limit)
        if o.parent_margin is not None and losses:
            limit = min(losses) + o.parent_margin
        reference = max(losses) if losses else None
        if o.reference is not None:
            reference = o.loss(o.reference)
        result.append(Goal(o.preference, *o.loss_range, limit, reference))
    return result
