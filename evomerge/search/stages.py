"""The stages of a run: each reads and writes the journal, and can be entered again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from evomerge.choice.finalists import choose_finalists, choose_rivals, choose_winner
from evomerge.config import SIMPLE
from evomerge.journal.folder import EXPORT_DIR
from evomerge.journal.room import when_there_is_room
from evomerge.search.baselines import compared, score_baselines, score_random
from evomerge.search.candidates import export
from evomerge.search.driver import SearchLoop
from evomerge.search.explain import explain
from evomerge.search.mend import missing_results
from evomerge.search.run import Run, ranking_of, winner_of
from evomerge.search.scoring import Report, Scoring
from evomerge.search.summary import write_summary

logger = logging.getLogger(__name__)


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
        bodies: dict[str, Callable[[], dict[str, Any]]] = {}
        if missing_results(self.run.state):
            yield Stage("mend", self.run, self._mend)
        bodies["baselines"] = self._baselines
        for number, phase in enumerate(self.run.setup.config.all_phases):
            end = "" if phase.name == SIMPLE else f"-{phase.name}"
            bodies[f"search{end}"] = partial(self._search, number, f"search{end}")
            bodies[f"finalists{end}"] = partial(self._finalists, number, f"finalists{end}")
        if "random" in self.run.setup.config.search.baselines:
            bodies["random"] = self._random
        if self.run.setup.config.search.explain:
            bodies["explain"] = self._explain
        bodies["holdout"] = self._holdout
        bodies["report"] = self._report
        if self.run.setup.config.search.export:
            bodies["export"] = self._export
        for name, body in bodies.items():
            stage = Stage(name, self.run, body)
            if not stage.is_over:
                yield stage

    def _mend(self) -> dict[str, Any]:
        """Score again what has lost its results."""
        for split, candidates in missing_results(self.run.state).items():
            self.scoring.score(candidates, split, "mend")
        return {}

    def _baselines(self) -> dict[str, Any]:
        score_baselines(self.run, self.scoring)
        return {}

    def _random(self) -> dict[str, Any]:
        score_random(self.run, self.scoring, self._decide)
        return {}

    def _search(self, phase: int, stage: str) -> dict[str, Any]:
        self.run.phase = phase
        reason = SearchLoop(self.run, self.scoring.dispatcher, self.report, phase, stage).go()
        return {"reason": reason}

    def _finalists(self, number: int, stage: str) -> dict[str, Any]:
        run, config = self.run, self.run.setup.config
        searched = run.searched_phase(number)
        # Entered again, the same are finalists, also where one has failed meanwhile.
        ids = run.state.decided.get(stage)
        ranking = run.state.decided.get(ranking_of(stage.replace("finalists", "search", 1)))
        ids = ids or choose_finalists(run.results, searched, config.search.finalists, ranking)
        self._decide(stage, ids)
        self.scoring.score([run.state.candidates[name] for name in ids], "validation", stage)
        is_last = number + 1 == len(config.all_phases)
        winner, front = choose_winner(run.results, searched, ids, is_last=is_last)
        self._decide(winner_of(config.all_phases[number]), winner)
        if not is_last:
            return {}
        if front is not None:
            self._decide("front", front.to_dict())
        if not searched.optimizer.finds_front:
            winners = [run.state.decided[winner_of(phase)] for phase in config.all_phases]
            winner = run.results.ranked(winners, "validation")[0]
        self._decide("chosen", winner)
        for role, rival in choose_rivals(run.results).items():
            self._decide(role, rival)
        return {}

    def _explain(self) -> dict[str, Any]:
        chosen = self.run.state.candidates[self.run.state.decided["chosen"]]
        if not chosen.is_member:
            explain(self.run, self.scoring, chosen)
        return {}

    def _holdout(self) -> dict[str, Any]:
        state = self.run.state
        chosen = state.candidates[state.decided["chosen"]]
        # Of a front a baseline can be the chosen one.
        rivals = [c for c in compared(self.run) if c is not chosen]
        self.scoring.open_holdout([chosen, *rivals], "final table")
        return {}

    def _report(self) -> dict[str, Any]:
        when_there_is_room(lambda: write_summary(self.run), self.run.run_dir)
        return {}

    def _export(self) -> dict[str, Any]:
        out_dir = self.run.run_dir / EXPORT_DIR
        if not out_dir.exists():
            chosen = self.run.state.decided["chosen"]
            when_there_is_room(lambda: export(self.run, chosen, out_dir), out_dir)
        return {}

    def _decide(self, what: str, value: Any) -> None:
        self.run.record("decided", what=what, value=value)
        self.run.commit()
