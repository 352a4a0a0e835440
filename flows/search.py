"""The main job as a Prefect flow: one task a stage; a retry of the flow resumes the run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
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
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled

from evomerge.choice.table import final_table
from evomerge.config import Config, load_config
from evomerge.errors import InputError
from evomerge.journal import JOURNAL_FILE
from evomerge.journal.folder import RUNS_DIR
from evomerge.record.report import markdown_table
from evomerge.search import Hooks, Progress, Result
from evomerge.search.api import resume as resume_run
from evomerge.search.api import start
from evomerge.stopping import signal_within

UPDATE_S = 3.0
"""Least time between two updates of a progress artifact."""


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


class FlowHooks:
    """One Prefect task a stage, with a progress artifact and one log line a batch.

    Args:
        inner: Other hooks that watch the run too.
    """

    def __init__(self, inner: Hooks | None = None) -> None:
        self.inner = inner
        self._artifact: UUID | None = None
        self._stage = ""
        self._updated = 0.0

    def stage(self, name: str, body: Callable[[], None]) -> None:
        """See `Hooks`."""
        watched = body if self.inner is None else lambda: self._watch(name, body)
        state = run_stage.with_options(name=name, task_run_name=name)(watched, return_state=True)
        if state.is_cancelled():
            raise TerminationSignal(signal.SIGTERM)
        state.result()

    def progress(self, progress: Progress) -> None:
        """See `Hooks`."""
        if self.inner is not None:
            self.inner.progress(progress)
        else:
            get_run_logger().info("%s: %s", progress.stage, progress.line)
        share = 100.0 * progress.done / progress.total if progress.total else 0.0
        if progress.stage != self._stage:
            key = "".join(c if c.isalnum() else "-" for c in progress.stage.lower())
            self._stage = progress.stage
            created: Any = create_progress_artifact(share, key=key, description=progress.line)
            self._artifact = created
        elif time.monotonic() - self._updated > UPDATE_S or progress.done == progress.total:
            assert self._artifact is not None
            update_progress_artifact(self._artifact, share, description=progress.line)
        else:
            return
        self._updated = time.monotonic()

    def _watch(self, name: str, body: Callable[[], None]) -> None:
        assert self.inner is not None
        self.inner.stage(name, body)


def search_with(
    hooks: Hooks, config: Config | Path | None, run_dir: Path | None, resume: bool
) -> Result:
    """Begin a search, or go on with it when it is resumed or this flow run is retried.

    Raises:
        InputError: Neither a configuration nor a run to resume is given.
    """
    if config is None:
        if run_dir is None or not resume:
            raise InputError("search: give `config`, or `run_dir` with `resume`")
        return resume_run(run_dir, hooks)
    loaded = config if isinstance(config, Config) else load_config(config)
    folder = run_dir or RUNS_DIR / f"{loaded.name}-{flow_run.id}"
    is_retry = (flow_run.run_count or 1) > 1
    if (resume or is_retry) and (folder / JOURNAL_FILE).exists():
        return resume_run(folder, hooks)
    config_dir = Path() if isinstance(config, Config) else config.parent
    return start(loaded, config_dir, folder, hooks)


@flow(name="search", validate_parameters=True)
def search(
    config: Config | Path | None = None, run_dir: Path | None = None, resume: bool = False
) -> str:
    """Search for the best merge of a pool.

    Args:
        config: The configuration, or the path of its YAML file.
        run_dir: The run folder; by default runs/, the search's name and the flow run's id.
        resume: Go on with the run in `run_dir`.

    Returns:
        The run folder.
    """
    result = search_with(FlowHooks(), config, run_dir, resume)
    create_markdown_artifact(markdown_table(final_table(result.results)), key="final-table")
    return str(result.run_dir)
