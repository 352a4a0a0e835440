"""The search loop: ask, dispatch, journal, tell; in order, and resumable anywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from evomerge.choice.results import lower_bound
from evomerge.errors import EvomergeError, StoppedError
from evomerge.fidelity.config import RaceConfig, SampledConfig
from evomerge.journal import Candidate
from evomerge.optimize import Scored
from evomerge.record.columns import score_words
from evomerge.search.asking import Asking
from evomerge.search.assistance import Assistance
from evomerge.search.derive import derive, fail
from evomerge.search.dispatch import Dispatcher
from evomerge.search.garbage import without_what_is_loaded
from evomerge.search.hooks import Progress
from evomerge.search.inbox import read_inbox
from evomerge.search.outcomes import line_of, outcome_of, to_optimizer
from evomerge.search.racing import Race
from evomerge.search.run import Run, ranking_of
from evomerge.search.spending import Spending
from evomerge.space import Genome
from evomerge.threads import one_thread

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the driver looks at its inbox and its deadline while nothing ends."""

MOST_RANKED = 100
"""Candidates whose order by estimates is journaled."""

NUM_REPEATS = 1000
"""Candidates in a row with recipes that are scored already, behind which nothing new is expected.

They cost next to nothing: a search that has only a time to end at would fill the disk with them.
"""


class SearchLoop:
    """The search stage of a run.

    Told in order, it depends on the configuration alone: what is asked follows from what was told,
    and of two that are scored the one that was asked first is told first.

    Args:
        run: The run.
        dispatcher: Its work.
        report: Called with progress.
        phase: Number of the phase.
        stage: The stage's name.
    """

    def __init__(
        self,
        run: Run,
        dispatcher: Dispatcher,
        report: Callable[[Progress], None],
        phase: int,
        stage: str,
    ) -> None:
        self.run = run
        self.dispatcher = dispatcher
        self.report = report
        self.phase = phase
        self.stage = stage
        self.space = run.space(phase)
        self.state = run.state.phases[phase]
        self.budget = run.setup.config.all_phases[phase].budget
        self._budget = Spending(run, phase)
        goals = run.results.goals("search")
        self.optimizer = run.setup.make_optimizer(phase, self.space, goals)
        search = run.setup.config.search
        # A configuration of a release before this one says neither.
        self._in_order = search.tell == "in_order"
        self._window = (search.in_flight or 1) if self._in_order else 0
        # In the order of their submission; those that are scored wait for those before them.
        self._assistance: Assistance | None = None
        if isinstance(search.fidelity, SampledConfig):
            assist = Race if isinstance(search.fidelity, RaceConfig) else Assistance
            self._assistance = assist(run, phase, search.fidelity, self.optimizer.population)
            # Candidates that are compared are under way together.
            self._window = max(self._window, self._assistance.set_size)
        self._in_flight: dict[str, Candidate] = {}
        self._scored: set[str] = set()
        self._waiting: list[Candidate] = []
        self._started = time.monotonic()
        self._elapsed_before = self.state.elapsed_s
        self._best: tuple[float, str] | None = None
        self._since_best = 0
        self._num_repeats = 0
        self._asking = Asking(run, self.optimizer, self._budget, self._assistance)
        self._refused: set[str] = set()

    def go(self) -> str:
        """Search until an end is reached.

        Returns:
            Which end.
        """
        # More threads change CMA-ES's trajectory: see design, decision 3.
        with one_thread(), without_what_is_loaded():
            self._restore()
            self._enqueue_starts()
            while True:
                self._take_inbox()
                self._go_on()
                if not self._in_flight:
                    reason = self._end() or self._asking.exhausted
                    if reason is not None:
                        self._rank()
                        return reason
                self._race()
                is_turn = self._next_told() is not None
                self._take_in([] if is_turn else self._ended())

    def _rank(self) -> None:
        """Journal who is best by all that is foretold, where candidates were only estimated."""
        if self._assistance is not None:
            ranked = self._assistance.ranking()[:MOST_RANKED]
            self.run.record("decided", what=ranking_of(self.stage), value=ranked)
            self.run.commit()

    def _ended(self) -> list[Candidate]:
        """Candidates whose work ended; none, once the inbox and the clock are to be looked at."""
        until = time.monotonic() + POLL_S
        while not (ended := self.dispatcher.step(POLL_S)) and time.monotonic() < until:
            pass
        return ended

    def _take_in(self, ended: list[Candidate]) -> None:
        """Tell of those that are scored, as far as it is their turn."""
        if not self._in_order:
            if ended:
                self._tell(ended)
            return
        self._scored.update(candidate.id for candidate in ended)
        self._race()
        while (first := self._next_told()) is not None:
            self._scored.discard(first.id)
            self._tell([first])
            # What is asked next may not depend on whether the next is scored already.
            self._go_on()

    def _race(self) -> None:
        """Have those scored on more documents whose place among their like is not decided."""
        first = next(iter(self._in_flight.values()), None)
        if self._assistance is None or first is None or first.sampled is None:
            # Whom candidates have to beat is known once all those before them are told.
            return
        while going := self._assistance.advance(self._scored):
            for candidate in going:
                if not candidate.is_done_on("search"):
                    self._scored.discard(candidate.id)
                    self.dispatcher.submit(candidate, "search")

    def _next_told(self) -> Candidate | None:
        """The candidate whose turn it is, if it is scored."""
        first = next(iter(self._in_flight.values()), None)
        if first is None or first.id not in self._scored:
            return None
        return first if self._assistance is None or self._assistance.is_over(first) else None

    def _go_on(self) -> None:
        """Begin what is to be begun; in order, what waits is, also where nothing more is asked.

        So a search that was killed ends as one that was not: of either nobody is left behind.
        """
        if self._end() is None:
            self._fill()
        elif self._in_order and not self._budget.out_of_time(self._elapsed()):
            self._fill(asks=False)

    def _restore(self) -> None:
        events = [to_optimizer(event) for event in self.state.events]
        difference = self.optimizer.restore([event for event in events if event is not None])
        if difference is not None:
            if self.run.strict:
                raise StoppedError(f"the replay differs from the record: {difference}")
            logger.warning("the optimizer is rebuilt from the record: %s", difference)
            self.run.record("rebased", reason=difference)
            self.run.commit()
        searched = self.run.state.searched(self.phase)
        told = {c.told: c for c in searched if c.told is not None}
        # What counts is how long ago the best was told, whenever it was asked.
        for place in sorted(told):
            self._note(told[place])
        if self._assistance is not None:
            self._assistance.restore()
        unfinished = [c for c in searched if c.told is None]
        if self._assistance is not None:
            self._asking.unsampled = [
                c for c in unfinished if c.ask is not None and c.sampled is None
            ]
            unfinished = [c for c in unfinished if c not in self._asking.unsampled]
        if self._in_order:
            self._waiting = unfinished
            return
        # Scored but not told when the driver died: tell these first, as it would have done.
        ended = [c for c in unfinished if "search" in c.failures or c.is_scored("search")]
        self._tell(sorted(ended, key=lambda candidate: candidate.ended_at))
        self._waiting = [c for c in unfinished if c.told is None]

    def _enqueue_starts(self) -> None:
        queued = {c.recipe_sha256 for c in self.run.state.searched(self.phase)}
        chosen = self.run.setup.starts.recipes if self.phase == 0 else []
        first = [*self.space.first, *chosen]
        landmarks = {r.sha256: r for r in map(self.space.to_recipe, self._landmarks())}
        known = {recipe.sha256 for recipe in first}
        first += [recipe for sha256, recipe in landmarks.items() if sha256 not in known]
        for recipe in first:
            if recipe.sha256 not in queued:
                self._waiting.append(self.run.add(self._enqueued_id(), "enqueued", recipe))
        self.run.commit()

    def _landmarks(self) -> tuple[Genome, ...]:
        config = self.run.setup.config
        asks_itself = config.all_phases[self.phase].optimizer.asks_landmarks
        return self.space.landmarks if config.search.landmarks and not asks_itself else ()

    def _take_inbox(self) -> None:
        for name, recipe in read_inbox(self.run):
            if name in self._refused:
                continue
            if isinstance(recipe, str):
                logger.warning("inbox: %s is left out: %s", name, recipe)
                self._refused.add(name)
                continue
            self._waiting.append(self.run.add(self._enqueued_id(), "enqueued", recipe, inbox=name))
            self.run.commit()

    def _enqueued_id(self) -> str:
        return f"e{len(self.run.state.of_origin('enqueued')):04d}"

    def _fill(self, *, asks: bool = True) -> None:
        """Have as many candidates under way as may be: waiting ones first, then new ones."""
        limit = min(
            self._window or self.dispatcher.group.num_actors, self.optimizer.max_outstanding
        )
        while len(self._in_flight) < limit:
            if self._waiting:
                candidate = self._waiting.pop(0)
            elif self._asking.unsampled and self._assistance is not None:
                self._waiting = self._asking.a_set(self._assistance, asks=asks)
                continue
            elif not asks or self._budget.over():
                return
            elif self._assistance is not None:
                # A set is asked as a whole, once there is room for all of it.
                room = limit - len(self._in_flight)
                is_room = not self._in_flight or room >= self._assistance.set_size
                self._waiting = self._asking.a_set(self._assistance) if is_room else []
                if not self._waiting:
                    return
                continue
            else:
                new = self._asking.one()
                if new is None:
                    return
                candidate = new
            self._in_flight[candidate.id] = candidate
            if "search" in candidate.failures or candidate.is_done_on("search"):
                # So a run was left that is gone on with.
                self._scored.add(candidate.id)
            elif candidate.sampled is not None and candidate.sampled.parts:
                # What it was begun with is gone on with, whatever its twins have by now.
                self.dispatcher.submit(candidate, "search")
            else:
                self.dispatcher.submit_once(candidate, "search")

    def _tell(self, ended: list[Candidate]) -> None:
        derive(self.run, ended, "search")
        for candidate in ended:
            self._in_flight.pop(candidate.id, None)
            if (
                self._assistance is not None
                and candidate.sampled
                and candidate.is_done_on("search")
                and "search" not in candidate.failures
            ):
                self._estimate(self._assistance, candidate)
            outcome = outcome_of(self.run, candidate)
            data: dict[str, Any] = {"failed": candidate.failures.get("search")}
            if isinstance(outcome, Scored):
                data = {"losses": outcome.losses, "standard_errors": outcome.standard_errors}
                if outcome.design_errors:
                    data["design_errors"] = outcome.design_errors
            self.run.record(
                "told",
                candidate=candidate.id,
                ask=candidate.ask,
                genome=candidate.genome,
                outcome=data,
                elapsed_s=self._elapsed(),
            )
        # On disk with the next result: a search that is killed before tells the same again.
        for candidate in ended:
            if candidate.ask is not None:
                self.optimizer.tell(candidate.ask, outcome_of(self.run, candidate))
            elif candidate.genome is not None:
                self.optimizer.tell(candidate.genome, outcome_of(self.run, candidate))
            self._note(candidate)
            if self._assistance is not None:
                self._assistance.learn(candidate)
            self._report(candidate)

    def _estimate(self, assistance: Assistance, candidate: Candidate) -> None:
        try:
            assistance.estimate(candidate)
        except EvomergeError as error:
            fail(self.run, candidate, "search", str(error))

    def _note(self, candidate: Candidate) -> None:
        results = self.run.results
        score = results.combined(candidate.id, "search")
        measured = candidate.measured.get("search")
        is_repeat = measured is not None and measured.same_as is not None
        self._num_repeats = self._num_repeats + 1 if is_repeat else 0
        self._since_best += 1
        known = [] if self._best is None else [self._best[1]]
        if score is None:
            return
        ranked = results.ranked([*known, candidate.id], "search", cautious=True)
        if ranked[0] not in known:
            # Of estimates the lower bound: the best of many is one that was lucky.
            self._best = lower_bound(score), candidate.id
            self._since_best = 0

    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._started

    def _end(self) -> str | None:
        """Why the search asks no further, if it does not."""
        budget = self.budget
        is_left = bool(self._waiting or self._asking.unsampled)
        if not is_left and (spent := self._budget.over()) is not None:
            return spent
        if (late := self._budget.out_of_time(self._elapsed())) is not None:
            return late
        if budget.target is not None and self._best and self._best[0] >= budget.target:
            return f"target {budget.target:g}"
        if budget.patience is not None and self._since_best >= budget.patience:
            return f"no better candidate among the last {budget.patience}"
        if self._num_repeats >= NUM_REPEATS:
            return f"the last {NUM_REPEATS:,} candidates have recipes that were scored before"
        return None

    def _report(self, candidate: Candidate) -> None:
        results, state = self.run.results, self.state
        known = self._best[1] if self._best else None
        best = results.combined(known, "search") if known else None
        self.report(
            Progress(
                stage=self.stage,
                done=state.num_told,
                total=self.budget.candidates,
                best=(best.value, best.standard_error) if best else None,
                best_candidate=known,
                num_failed=state.num_failed,
                line=line_of(results, candidate, "search"),
                best_words=(score_words(results, known, "search") or "") if known else "",
            )
        )
