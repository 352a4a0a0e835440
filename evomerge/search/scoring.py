"""A run's candidates scored: the service that its stages, promotion and the command share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from evomerge.journal import Candidate
from evomerge.score import Split
from evomerge.search.derive import derive
from evomerge.search.dispatch import Dispatcher
from evomerge.search.hooks import Progress
from evomerge.search.outcomes import line_of
from evomerge.search.run import Run
from evomerge.workers import WorkerGroup, WorkersConfig, WorkerSpec, start_group

if TYPE_CHECKING:
    from types import TracebackType

Report = Callable[[Progress], None]
Start = Callable[[WorkersConfig, WorkerSpec], WorkerGroup]


class Scoring:
    """Scores a run's candidates, within a context.

    Workers start when they are first needed, serve all that follows, and end with the context.

    Args:
        run: The run; results are journaled.
        report: Called with progress.
        start: Starts the workers; by default those that the configuration asks for.
    """

    def __init__(self, run: Run, report: Report, start: Start = start_group) -> None:
        self.run = run
        self.report = report
        self._start = start
        self._group: WorkerGroup | None = None
        self._dispatcher: Dispatcher | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._group is not None:
            self._group.close()
        if self._dispatcher is not None:
            self._dispatcher.flush()

    @property
    def dispatcher(self) -> Dispatcher:
        """The run's work; starts the workers when they are first needed."""
        if self._dispatcher is None:
            setup = self.run.setup
            self._group = self._start(setup.config.workers, setup.worker_spec())
            self._dispatcher = Dispatcher(self.run, self._group)
        return self._dispatcher

    def score(
        self,
        candidates: list[Candidate],
        split: Split,
        stage: str,
        *,
        again: bool = False,
        measure: bool = False,
    ) -> None:
        """Score candidates on a split.

        Args:
            candidates: Those to score; left out are those that have scores, and those that were
                given up on this split or on the search split.
            split: On which documents.
            stage: Of which progress speaks.
            again: Also try those that were given up on this split.
            measure: Also score those on all search documents that were told by a sample of them.
        """
        total = len(candidates)

        def progress(ended: list[Candidate]) -> None:
            derive(self.run, ended, split, is_last=False)
            done = sum(
                c.scores(split) is not None or bool({"search", split} & c.failures.keys())
                for c in candidates
            )
            for candidate in ended:
                line = line_of(self.run.results, candidate, split)
                self.report(Progress(f"{stage}: {split}", done, total, None, None, 0, line))

        given_up = {"search"} if again else {"search", split}
        told = [c for c in candidates if measure and split == "search" and c.told is not None]
        estimated = [c for c in told if c.is_estimated]
        missing = [
            c
            for c in candidates
            if not given_up & c.failures.keys()
            and (c.scores(split) is None or not c.is_done_on(split) or c in estimated)
        ]
        unscored = [c for c in missing if not c.is_done_on(split) and c not in estimated]
        if unscored:
            self.dispatcher.run_all(unscored, split, progress)
        if estimated:
            self.dispatcher.run_all(estimated, split, progress, whole=True)
        derive(self.run, missing, split)

    def open_holdout(self, candidates: list[Candidate], why: str, *, again: bool = False) -> None:
        """Score candidates on holdout, as `score` does; that it is opened is journaled first."""
        new = [c.id for c in candidates if c.id not in self.run.state.holdout_opened]
        if new:
            self.run.record("holdout_opened", candidates=new, why=why)
            self.run.commit()
        self.score(candidates, "holdout", "holdout", again=again)
