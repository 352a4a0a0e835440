"""The main job as a Prefect flow: one task a stage; a retry of the flow resumes the run."""

from __future__ import annotations

import json
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import State, flow, get_client, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events import emit_event
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled

from evomerge.choice.table import final_table
from evomerge.config import Config, load_config, with_overrides
from evomerge.errors import InputError
from evomerge.journal import JOURNAL_FILE
from evomerge.journal.folder import CONFIG_FILE, REPORT_FILE, RUNS_DIR
from evomerge.record.commands import promote_command, ui_command
from evomerge.record.place import link_to
from evomerge.record.report import markdown_table
from evomerge.record.verdicts import verdict
from evomerge.search import Hooks, Progress, Result
from evomerge.search.api import resume as resume_run
from evomerge.search.api import start
from evomerge.stopping import signal_within
from flows.form import FormConfig

UPDATE_S = 3.0
"""Least time between two updates of a progress artifact."""

LIST_S = 30.0
"""Least time between two lists of the last candidates."""

NUM_LISTED = 10

LATE_S = 5.0
"""How long the crash of a task is waited for."""


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(body: Callable[[], None]) -> State[Any] | None:
    """Run one stage of a search; of a flow run that is cancelled, it is cancelled too."""
    try:
        body()
    except BaseException as error:
        if isinstance(signal_within(error), TerminationSignal) and _is_cancelled():
            return Cancelled(message="the flow run was cancelled")
        raise
    return None


def _is_cancelled() -> bool:
    """Whether this flow run is to be cancelled, and not only its process ended."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run.id)).state
    except (httpx.HTTPError, PrefectException):
        return False
    return state is not None and state.is_cancelling()


def _cancel_crashed_tasks() -> None:
    """Make cancelled tasks of those that the signal has crashed.

    A task and its state come to the server by events, behind what is asked here: until a crash has
    come, it is waited for, some seconds at most.
    """
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)]))
    ends, has_crashed = time.monotonic() + LATE_S, False
    with suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
        while not has_crashed and time.monotonic() < ends:
            for task_run in client.read_task_runs(flow_run_filter=this):
                state = task_run.state
                if state is None or state.is_crashed() or not state.is_final():
                    cancelled: State[Any] = Cancelled(message="the flow run was cancelled")
                    client.set_task_run_state(task_run.id, cancelled, force=True)
                    has_crashed |= state is not None and state.is_crashed()
            time.sleep(0.1)


class FlowHooks:
    """One Prefect task a stage, with artifacts of its progress and one log line a batch.

    Args:
        inner: Other hooks that watch the run too.

    Attributes:
        run_dir: The run folder, once it is known.
    """

    def __init__(self, inner: Hooks | None = None) -> None:
        self.inner = inner
        self.run_dir: Path | None = None
        self._artifact: UUID | None = None
        self._stage = ""
        self._began = 0.0
        self._done_before = 0
        self._updated = 0.0
        self._listed = 0.0
        self._last: deque[str] = deque(maxlen=NUM_LISTED)

    def stage(self, name: str, body: Callable[[], None]) -> None:
        """See `Hooks`."""
        watched = body if self.inner is None else lambda: self._watch(name, body)
        try:
            state = run_stage.with_options(name=name, task_run_name=name)(
                watched, return_state=True
            )
        except BaseException:
            # The signal came while Prefect itself was at work on the task, and has crashed it.
            if _is_cancelled():
                _cancel_crashed_tasks()
            raise
        if state.is_crashed() and _is_cancelled():
            _cancel_crashed_tasks()
            raise TerminationSignal(signal.SIGTERM)
        if state.is_cancelled():
            raise TerminationSignal(signal.SIGTERM)
        state.result()

    def progress(self, progress: Progress) -> None:
        """See `Hooks`."""
        if self.inner is not None:
            self.inner.progress(progress)
        else:
            get_run_logger().info("%s: %s", progress.stage, progress.line)
        now = time.monotonic()
        share = 100.0 * progress.done / progress.total if progress.total else 0.0
        if progress.stage != self._stage:
            self._stage, self._began, self._done_before = progress.stage, now, progress.done
            self._last.clear()
            key = _key(progress.stage)
            said = self._words(progress, now)
            created: Any = create_progress_artifact(share, key=key, description=said)
            self._artifact = created
        elif now - self._updated > UPDATE_S or progress.done == progress.total:
            assert self._artifact is not None
            said = self._words(progress, now)
            update_progress_artifact(self._artifact, share, description=said)
        else:
            self._last.append(progress.line)
            return
        self._last.append(progress.line)
        self._updated = now
        if now - self._listed > LIST_S or progress.done == progress.total:
            self._listed = now
            self._list(progress, said)

    def _words(self, progress: Progress, now: float) -> str:
        """Where a stage is: how many, the best, how fast, and how long it will take."""
        words = f"{progress.done:,}"
        if progress.total:
            words += f" of {progress.total:,}"
        if progress.best_candidate is not None:
            words += f"; best {progress.best_words} ({progress.best_candidate})"
        if progress.num_failed:
            words += f"; {progress.num_failed} failed"
        done, spent = progress.done - self._done_before, now - self._began
        if done > 0 and spent > 0.0:
            words += f"; {3600.0 * done / spent:,.0f} an hour"
            if progress.total:
                left = (progress.total - progress.done) * spent / done
                words += f"; {_minutes(left)} left" if left > 0.0 else ""
        return words

    def _list(self, progress: Progress, said: str) -> None:
        """The last candidates, as an artifact of its own."""
        lines = [f"**{progress.stage}**: {said}", "", *(f"- {line}" for line in self._last)]
        if self.run_dir is not None:
            lines += ["", *mlflow_lines(self.run_dir)]
        create_markdown_artifact(
            "\n".join(lines),
            key="last-candidates",
            description=f"The last {NUM_LISTED} candidates, as they were scored.",
        )

    def _watch(self, name: str, body: Callable[[], None]) -> None:
        assert self.inner is not None
        self.inner.stage(name, body)


def _minutes(seconds: float) -> str:
    """A time to wait, as it is worth saying."""
    return f"about {seconds / 60:,.0f} min" if seconds >= 60 else "less than a minute"


def _key(name: str) -> str:
    """A name as an artifact's key may be."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def loaded(
    config: Config | Path, overrides: Mapping[str, Any] | None = None, seed: int | None = None
) -> Config:
    """A configuration with changes.

    Args:
        config: The configuration, or the path of its YAML file.
        overrides: Values by field, such as {"search.budget.candidates": 50}.
        seed: Instead of the configuration's.

    Raises:
        InputError: A field or a value is wrong.
    """
    changes = _changes(overrides, seed)
    if isinstance(config, Config):
        return with_overrides(config, changes) if changes else config
    return load_config(config, changes)


def _changes(overrides: Mapping[str, Any] | None, seed: int | None) -> list[str]:
    """Changes as the command has them."""
    changes = [f"{name}={json.dumps(value)}" for name, value in (overrides or {}).items()]
    return changes if seed is None else [*changes, f"seed={seed}"]


def _require_same(run_dir: Path, changes: Sequence[str]) -> None:
    """Refuse to go on with a run that was begun with other settings.

    Raises:
        InputError: It was.
    """
    if not (run_dir / CONFIG_FILE).exists():
        return
    begun = load_config(run_dir / CONFIG_FILE)
    for change in changes:
        if with_overrides(begun, [change]) != begun:
            raise InputError(f"{run_dir} was begun with another setting than {change}")


def search_with(
    hooks: FlowHooks,
    config: Config | Path | None,
    run_dir: Path | None,
    resume: bool,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    config_dir: Path | None = None,
) -> Result:
    """Begin a search, or go on with it when it is resumed or this flow run is retried.

    Raises:
        InputError: Neither a configuration nor a run to resume is given.
    """
    if config is None:
        if run_dir is None or not resume:
            raise InputError("search: give `config`, or `run_dir` with `resume`")
        if seed is not None:
            raise InputError(f"search: {run_dir} keeps its seed; leave `seed` out to resume it")
        hooks.run_dir = run_dir
        return resume_run(run_dir, hooks, overrides=_changes(overrides, None))
    changed = loaded(config, overrides, seed)
    folder = hooks.run_dir = run_dir or RUNS_DIR / f"{changed.name}-{flow_run.id}"
    is_retry = (flow_run.run_count or 1) > 1
    if (resume or is_retry) and (folder / JOURNAL_FILE).exists():
        if not is_retry:
            _require_same(folder, _changes(overrides, seed))
        return resume_run(folder, hooks)
    if not isinstance(config, Config):
        config_dir = config.parent
    return start(changed, config_dir or Path(), folder, hooks)


@flow(name="search", validate_parameters=True)
def search(
    config: FormConfig | Path | None = None,
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    config_dir: Path | None = None,
) -> str:
    """Search for the best merge of a pool.

    Args:
        config: The configuration, or the path of its YAML file.
        overrides: Changes of the configuration, such as {"search.budget.candidates": 50}.
        seed: Instead of the configuration's.
        run_dir: The run folder; by default runs/, the search's name and the flow run's id.
        resume: Go on with the run in `run_dir`.
        config_dir: What the configuration's relative paths start from, by default the working
            folder; of a YAML file, it is always the file's own folder.

    Returns:
        The run folder.
    """
    result = search_with(FlowHooks(), config, run_dir, resume, overrides, seed, config_dir)
    tell(result)
    return str(result.run_dir)


def mlflow_lines(run_dir: Path) -> list[str]:
    """How to get to a run in MLflow, where it is recorded there."""
    if not load_config(run_dir / CONFIG_FILE).record.enabled:
        return []
    link = link_to(run_dir)
    if link is not None:
        return [f"[this run in MLflow]({link})"]
    return [f"`{ui_command(run_dir)}` opens MLflow"]


ENDED = "evomerge.search.ended"
"""The event of a search that has ended; its payload has `name`, `verdict` and `run_dir`."""


def tell(result: Result) -> None:
    """Leave artifacts of what a search has found: verdict, table, front, and where to look.

    An event says it too, for automations.
    """
    table = final_table(result.results)
    found = verdict(table)
    create_markdown_artifact(f"**{found}**", key="verdict", description=found)
    # A front is shown where one was looked for.
    shown = table if result.results.finds_front else table | {"front": None}
    create_markdown_artifact(
        markdown_table(shown),
        key="final-table",
        description="Scores of the chosen model and of everybody it is compared with.",
    )
    where = [f"run folder: `{result.run_dir}`", f"report: `{result.run_dir / REPORT_FILE}`"]
    where += mlflow_lines(result.run_dir)
    if table["chosen"] is not None:
        line = promote_command(result.run_dir, table["chosen"])
        where.append(f"`{line}` has {table['chosen']} built")
    create_markdown_artifact(
        "\n".join(f"- {line}" for line in where),
        key="links",
        description="Where everything is, and what can be done next.",
    )
    emit_event(
        event=ENDED,
        resource={"prefect.resource.id": f"evomerge.search.{table['name']}"},
        payload={"name": table["name"], "verdict": found, "run_dir": str(result.run_dir)},
    )
