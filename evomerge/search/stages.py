"""The stages of a run: each reads and writes the journal, and can be entered again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from evomerge.config import SIMPLE
from evomerge.errors import EvomergeError
from evomerge.journal import Candidate
from evomerge.journal.folder import EXPORT_DIR
from evomerge.recipe import Recipe
from evomerge.search.candidates import export
from evomerge.search.driver import SearchLoop
from evomerge.search.front import decide_front, finalists_for_front
from evomerge.search.run import Run, winner_of
from evomerge.search.scoring import Report, Scoring
from evomerge.search.summary import write_summary
from evomerge.space import recipes

logger = logging.getLogger(__name__)

FINALISTS = 10
FRONT_FINALISTS = 30
"""How many candidates validation decides among, of a search for one model and for a front."""


@dataclass(frozen=True)
class Stage:
    """A step of a run, which reads and writes the journal and can be entered again.

    Attributes:
        name: What the journal calls it.
        run: Whose step it is.
        body: The work; returns what the journal notes at its end. Entered again where it stopped,
            it does what the journal does not have yet.
    """

    name: str
    run: Run
    body: Callable[[], dict[str, Any]]

    @property
    def is_over(self) -> bool:
        """Whether the journal has its end."""
        return self.run.state.stages.get(self.name) == "ended"

    def go(self) -> None:
        """Do the work, between its two lines in the journal."""
        self.run.record("stage_started", stage=self.name)
        self.run.commit()
        outcome = self.body()
        self.run.record("stage_ended", stage=self.name, **outcome)
        self.run.commit()


class Stages:
    """The stages of one run, in order.

    Args:
        run: The run.
        scoring: Scores its candidates.
        report: Called with progress.
    """

    def __init__(self, run: Run, scoring: Scoring, report: Report) -> None:
        self.run = run
        self.scoring = scoring
        self.report = report

    def __iter__(self) -> Iterator[Stage]:
        """Those that are not over."""
        bodies: dict[str, Callable[[], dict[str, Any]]] = {"baselines": self._baselines}
        for number, phase in enumerate(self.run.setup.config.all_phases):
            end = "" if phase.name == SIMPLE else f"-{phase.name}"
            bodies[f"search{end}"] = partial(self._search, number, f"search{end}")
            bodies[f"finalists{end}"] = partial(self._finalists, number, f"finalists{end}")
        bodies["holdout"] = self._holdout
        bodies["report"] = self._report
        if self.run.setup.config.search.export:
            bodies["export"] = self._export
        for name, body in bodies.items():
            stage = Stage(name, self.run, body)
            if not stage.is_over:
                yield stage

    def _baselines(self) -> dict[str, Any]:
        for name, recipe in baselines(self.run).items():
            if name not in self.run.state.candidates:
                self.run.add(name, "baseline", recipe)
        self.run.commit()
        candidates = self.run.state.of_origin("baseline")
        self.scoring.score(candidates, "search", "baselines")
        self.scoring.score(candidates, "validation", "baselines")
        failed = [c for c in candidates if c.failed is not None]
        if len(failed) == len(candidates):
            raise EvomergeError(f"every baseline failed: {failed[0].failed}")
        return {}

    def _search(self, phase: int, stage: str) -> dict[str, Any]:
        self.run.phase = phase
        reason = SearchLoop(self.run, self.scoring.dispatcher, self.report, phase, stage).go()
        return {"reason": reason}

    def _finalists(self, number: int, stage: str) -> dict[str, Any]:
        run = self.run
        phase = run.setup.config.all_phases[number]
        searched = run.state.searched(number)
        scored = [c for c in searched if c.scores("search") is not None]
        if not scored:
            reasons = {c.failed for c in searched if c.failed is not None}
            raise EvomergeError(f"every candidate failed: {next(iter(reasons), 'none was asked')}")

        # A recipe that was enqueued and asked for as well is one finalist.
        distinct: dict[str, Candidate] = {}
        for candidate in scored:
            distinct.setdefault(candidate.recipe_sha256, candidate)
        # Entered again, the same are finalists, also where one has failed meanwhile.
        ids = run.state.decided.get(stage) or self._best_on_search(number, list(distinct.values()))
        finalists = [run.state.candidates[name] for name in ids]
        self._decide(stage, ids)
        self.scoring.score(finalists, "validation", stage)
        ranked = run.results.ranked(ids, "validation")
        if not ranked:
            raise EvomergeError(f"every finalist failed: {finalists[0].failed}")
        winner = ranked[0]
        is_last = number + 1 == len(run.setup.config.all_phases)
        front = None
        if phase.optimizer.finds_front or (is_last and len(run.setup.objectives) > 1):
            front = decide_front(run, number)
        if phase.optimizer.finds_front:
            assert front is not None
            # Of those who can be merged on: a later phase needs a candidate of this one.
            winner = front.knee if is_last else front.best_of(ids, run.results.objectives)
        self._decide(winner_of(phase), winner)
        if not is_last:
            return {}
        if front is not None:
            self._decide("front", front.to_dict())
        winners = [run.state.decided[winner_of(each)] for each in run.setup.config.all_phases]
        if not phase.optimizer.finds_front:
            winner = run.results.ranked(winners, "validation")[0]
        self._decide("chosen", winner)
        # The rivals of the final comparison are chosen on validation as well.
        parents = run.results.parents
        merges = [c.id for c in run.state.of_origin("baseline") if c.id not in parents]
        self._decide("best_parent", run.results.best(parents, "validation"))
        self._decide("best_baseline", run.results.best(merges, "validation"))
        return {}

    def _best_on_search(self, number: int, scored: list[Candidate]) -> list[str]:
        """Ids of the finalists, the best first."""
        run = self.run
        config = run.setup.config
        finds_front = config.all_phases[number].optimizer.finds_front
        count = config.search.finalists or (FRONT_FINALISTS if finds_front else FINALISTS)
        if finds_front:
            return finalists_for_front(run, number, scored, count)
        return run.results.ranked([c.id for c in scored], "search")[:count]

    def _holdout(self) -> dict[str, Any]:
        state = self.run.state
        chosen = state.candidates[state.decided["chosen"]]
        # Of a front a baseline can be the chosen one.
        rivals = [c for c in state.of_origin("baseline") if c is not chosen]
        self.scoring.open_holdout([chosen, *rivals], "final table")
        return {}

    def _report(self) -> dict[str, Any]:
        write_summary(self.run)
        return {}

    def _export(self) -> dict[str, Any]:
        out_dir = self.run.run_dir / EXPORT_DIR
        if not out_dir.exists():
            export(self.run, self.run.state.decided["chosen"], out_dir)
        return {}

    def _decide(self, what: str, value: Any) -> None:
        self.run.record("decided", what=what, value=value)
        self.run.commit()


def baselines(run: Run) -> dict[str, Recipe]:
    """Models that need no search, by candidate id."""
    pool = run.setup.pool
    named = {"base": recipes.member(pool, "base")}
    for expert in pool.experts:
        named[f"parent-{expert.name}"] = recipes.member(pool, expert.name)
    named["uniform"] = recipes.uniform(pool)
    for scale in run.setup.config.search.task_arithmetic_scales:
        named[f"task-arithmetic-{scale:g}"] = recipes.task_arithmetic(pool, scale)
    return named
