"""Searching from Python: run, resume, and what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.choice import Results
from evomerge.config import Config, load_config
from evomerge.errors import InputError, StoppedError
from evomerge.journal import check_is_run, replay
from evomerge.journal.folder import RUNS_DIR
from evomerge.record.follow import Syncer
from evomerge.search.extend import changed_config, extend, has_ended
from evomerge.search.hooks import Hooks, Progress, Quiet
from evomerge.search.inbox import read_inbox
from evomerge.search.mend import mend_recipes, note_lost_documents
from evomerge.search.new_folder import check_free, is_free
from evomerge.search.run import Run, reopen_run, start_run
from evomerge.search.scoring import Scoring
from evomerge.search.setup import set_up
from evomerge.search.stages import Stages
from evomerge.search.summary import write_summary
from evomerge.stopping import StopNow, Stopping, signal_within, stopping

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A run folder, read.

    Attributes:
        run_dir: The folder.
    """

    run_dir: Path

    @cached_property
    def results(self) -> Results:
        """What the journal says.

        Raises:
            InputError: The run never began.
        """
        state = replay(self.run_dir)
        if not state.started:
            raise InputError(f"{self.run_dir}: the run never began")
        return Results(self.run_dir, state)

    @property
    def best(self) -> str:
        """Id of the chosen candidate.

        Raises:
            InputError: The run has not chosen one yet.
        """
        chosen: str | None = self.results.state.decided.get("chosen")
        if chosen is None:
            raise InputError(f"{self.run_dir}: no candidate is chosen yet; resume the run")
        return chosen

    @property
    def candidates(self) -> pd.DataFrame:
        """One row a candidate.

        Columns: origin, failed; genome/DIMENSION; and for each split that is scored
        SPLIT/OBJECTIVE and SPLIT/OBJECTIVE/se, with "combined" among the objectives. What is
        estimated by a sample of the search documents is in search_estimate/... Holdout scores
        stand only where the holdout was opened.
        """
        import pandas as pd

        state = self.results.state
        rows = {}
        for candidate in state.candidates.values():
            row: dict[str, Any] = {"origin": candidate.origin, "failed": candidate.failed}
            for name, number in zip(
                state.dimensions(candidate.phase), candidate.genome or (), strict=False
            ):
                row[f"genome/{name}"] = number
            for split, shown in candidate.shown_splits.items():
                if split == "holdout" and candidate.id not in state.holdout_opened:
                    continue
                for name, estimate in (candidate.scores(split) or {}).items():
                    row[f"{shown}/{name}"] = estimate.value
                    row[f"{shown}/{name}/se"] = estimate.standard_error
                combined = self.results.combined(candidate.id, split)
                if combined is not None:
                    row[f"{shown}/combined"] = combined.value
                    row[f"{shown}/combined/se"] = combined.standard_error
            rows[candidate.id] = row
        return pd.DataFrame.from_dict(rows, orient="index")

    @property
    def front(self) -> list[str]:
        """Candidates that no other beats on every objective, on validation.

        Of a search with one objective the chosen one.

        Raises:
            InputError: The run has not chosen one yet.
        """
        front = self.results.front
        return [self.best] if front is None else [entry.candidate for entry in front.members]

    def pick(
        self,
        prefer: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
    ) -> str:
        """The candidate of the front that is best for a preference.

        Args:
            prefer: Weights by objective; None: the front's knee.
            at_least: Worst values that will do, by objective.

        Raises:
            InputError: The run has no front yet, a name is no objective, or nobody will do.
        """
        front = self.results.front
        if front is None:
            reason = "one objective" if len(self.results.objectives) == 1 else "no finalists yet"
            if reason != "one objective" and "chosen" in self.results.state.decided:
                reason = "been made by a release that decided none"
            raise InputError(f"{self.run_dir}: no front: the run has {reason}")
        return front.pick(self.results.objectives, prefer, at_least)


def run(
    config: Config | Path | str, run_dir: Path | str | None = None, hooks: Hooks | None = None
) -> Result:
    """Search.

    Args:
        config: A configuration or its YAML file; relative paths in an object are relative to
            the current folder.
        run_dir: A new folder; by default `runs/NAME`, with a number behind it where that exists.
        hooks: What watches the run.

    Returns:
        What came of it.

    Raises:
        InputError: The configuration cannot be used.
        StoppedError: The run was stopped; `resume` goes on with it.
    """
    folder = Path(run_dir) if run_dir is not None else None
    if isinstance(config, Config):
        return start(config, Path(), folder, hooks or Quiet())
    return start(load_config(Path(config)), Path(config).parent, folder, hooks or Quiet())


def start(config: Config, config_dir: Path, run_dir: Path | None, hooks: Hooks) -> Result:
    """Search by a loaded configuration whose relative paths are relative to `config_dir`."""
    folder = run_dir or free_run_dir(config.name)
    check_free(folder)
    return _checked(lambda: start_run(set_up(config, config_dir), folder), hooks)


def resume(
    run_dir: Path | str,
    hooks: Hooks | None = None,
    *,
    strict: bool = False,
    overrides: Sequence[str] = (),
) -> Result:
    """Go on with a run where it stopped, in whatever stage, or beyond its end.

    Args:
        run_dir: The run folder.
        hooks: What watches the run.
        strict: Stop where a replayed ask differs from its record.
        overrides: Changes of its budget, its workers or its record, "a.b=value" each. A search
            that has ended goes on with them; its earlier choice stays on record.

    Raises:
        InputError: It is no run folder, is in use, has changed, or cannot have such a change.
        StoppedError: The run was stopped again.
    """
    return _checked(lambda: _reopen(Path(run_dir), strict, overrides), hooks or Quiet())


def _reopen(run_dir: Path, strict: bool, overrides: Sequence[str]) -> Run:
    check_is_run(run_dir)
    config = changed_config(run_dir, overrides) if overrides else None
    run = reopen_run(run_dir, strict=strict, config=config)
    try:
        # What was handed in after the end is a candidate more to decide among.
        came_late = any(not isinstance(recipe, str) for _, recipe in read_inbox(run))
        if overrides or (came_late and has_ended(run.state)):
            extend(run, overrides)
        mend_recipes(run)
        note_lost_documents(run)
    except BaseException:
        run.close()
        raise
    return run


def _checked(make: Callable[[], Run], hooks: Hooks) -> Result:
    """Open the run in a stage of its own, then do what is left."""
    opened: list[Run] = []
    with stopping():
        try:
            hooks.stage("check", lambda: opened.append(make()))
            return work_on(opened[0], hooks)
        except StopNow as signal:
            # Before there was anything under way.
            for run in opened:
                run.close()
            raise StoppedError(f"stopped ({signal}); nothing was begun") from None


def free_run_dir(name: str) -> Path:
    """`runs/NAME`, or the first of `runs/NAME-2`, ... that has no run that began."""
    folder, number = RUNS_DIR / name, 1
    while not is_free(folder):
        number += 1
        folder = RUNS_DIR / f"{name}-{number}"
    return folder


def work_on(run: Run, hooks: Hooks) -> Result:
    """Run the stages that are left, follow them with MLflow's syncer, and close the run.

    Raises:
        StoppedError: A signal stopped it, or something that another try may do without.
    """

    def report(progress: Progress) -> None:
        logger.info("%s: %s", progress.stage, progress.line)
        hooks.progress(progress)

    syncer: Syncer | None = None
    asked: BaseException | None = None
    with stopping() as stop:
        try:
            if run.setup.config.record.enabled:
                syncer = Syncer(run.run_dir)
            stop.has_work = True
            with Scoring(run, report) as scoring:
                for stage in Stages(run, scoring, report):
                    stop.check()
                    if stop.gently:
                        raise StoppedError("interrupted")
                    hooks.stage(stage.name, stage.go)
        except BaseException as error:
            stopped = _stopped(run, stop, error)
            if stopped is not None:
                raise stopped from None
            # What somebody else's handler raises.
            asked = signal_within(error)
            if asked is not None and asked is not error:
                raise asked from None
            raise
        finally:
            stop.has_work = False
            run.close()
            if syncer is not None:
                syncer.finish(waits=stop.now is None and asked is None)
    return Result(run.run_dir)


def _stopped(run: Run, stop: Stopping, error: BaseException) -> StoppedError | None:
    """Note in the journal why a run ends; None: by an error that is told as it is."""
    is_signal = stop.now is not None or isinstance(error, StopNow | KeyboardInterrupt)
    # Where a signal falls into a call of another library, that raises something of its own.
    reason = stop.now or (str(error) if isinstance(error, StoppedError) else "interrupted")
    kind = "StoppedError" if is_signal else type(error).__name__
    run.record("stopped", reason=f"{kind}: {reason if is_signal else error}"[:500])
    if not is_signal and not isinstance(error, StoppedError):
        return None
    if stop.now is None and run.state.stages.get("baselines") == "ended":
        try:
            write_summary(run)
        except OSError as unwritten:
            logger.warning("%s: the report is not written: %s", run.run_dir, unwritten)
    return StoppedError(f"stopped ({reason}); `evomerge resume {run.run_dir}` goes on with it")
