"""Journal to MLflow: one parent run for each search, one child run for each candidate.

Run as a process of its own (`python -m evomerge.record.mlflow_sync RUN_DIR [--follow]`), so that
MLflow never slows the search. Writing is idempotent: a child run carries its candidate's id as a
tag, is found again by it, and gets only what it has not. One process writes for a run folder at a
time (`sole_writer`).
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from evomerge.choice.results import Results
from evomerge.choice.table import final_table
from evomerge.errors import EvomergeError
from evomerge.hidden import log_to_stderr
from evomerge.journal import JOURNAL_FILE, Candidate, RunState, apply_all, iterate
from evomerge.journal.folder import (
    ARTIFACTS_DIR,
    CONFIG_FILE,
    FRONT_FILE,
    RECIPES_DIR,
    REPORT_FILE,
    SUMMARY_FILE,
)
from evomerge.journal.journal import is_in_use
from evomerge.record import keys
from evomerge.record.config import tracking_uri
from evomerge.record.mlflow_pages import NOTE, candidate_note, experiment_tags, search_note
from evomerge.record.mlflow_store import (
    ERRORS,
    experiment_id,
    make_database,
    params_of,
    passes,
    reason_of,
    run_key,
    tagged,
)
from evomerge.record.numbers import (
    datasets_of,
    facts_of,
    metric_name,
    metrics_of,
    milliseconds,
)
from evomerge.record.place import note_place
from evomerge.record.steps import Steps
from evomerge.record.verdicts import verdict_lines
from evomerge.record.writer import WAIT_S, sole_writer
from evomerge.score import SPLITS

logger = logging.getLogger(__name__)

POLL_S = 1.0
RETRY_S = 5.0
BATCH = 100
"""MLflow's limit of params and tags in one call."""

MOST_METRICS = 1000
"""The same of metrics."""


ARTIFACTS = (CONFIG_FILE, SUMMARY_FILE, REPORT_FILE, FRONT_FILE, RECIPES_DIR)


class MlflowRecord:
    """The MLflow side of one run folder.

    Args:
        run_dir: The run folder.
        is_ours: Whether this process has the run open itself, to do something with what it found.
    """

    def __init__(self, run_dir: Path, *, is_ours: bool = False) -> None:
        self.run_dir = run_dir.resolve()
        self.is_ours = is_ours
        config = yaml.safe_load((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))
        self.settings: dict[str, Any] = config["record"]
        self.name: str = config["name"]
        self.state = RunState()
        self.results = Results(self.run_dir, self.state)
        self.offset = 0
        self.num_events = 0
        self._client: MlflowClient | None = None
        self._parent = ""
        self._experiment = ""
        self._children: dict[str, str] = {}
        self._written: dict[str, tuple[str, ...]] = {}
        self._changed: dict[str, None] = {}
        self._steps = Steps(self.results, config["workers"].get("num_actors"))
        self._progress: list[Metric] = []

    def read(self) -> bool:
        """Take in the journal's new lines; true if there were any."""
        before = self.num_events
        for event, size in iterate(self.run_dir / JOURNAL_FILE, self.offset, self.num_events):
            apply_all(self.state, [event], self.run_dir)
            if event.kind == "result" and event.data["split"] == "search":
                if self.state.candidates[event.data["candidate"]].is_searched:
                    self._steps.worked(event.data)
            elif event.kind == "told":
                candidate = self.state.candidates[event.data["candidate"]]
                self._progress += self._steps.told(candidate, event.time)
            named = event.data.get("candidates", [event.data.get("candidate")])
            self._changed |= {name: None for name in named if name is not None}
            self.offset += size
            self.num_events += 1
        return self.num_events > before

    def write(self) -> None:
        """Bring MLflow to what the journal says."""
        if not self.state.started:
            return
        if self._client is None:
            self._connect()
        for name in list(self._changed):
            candidate = self.state.candidates[name]
            facts = facts_of(candidate, self.state)
            if facts and self._written.get(name) != facts:
                self._write_candidate(candidate)
                self._written[name] = facts
            del self._changed[name]
        client = self._client
        assert client is not None
        while self._progress:
            client.log_batch(self._parent, metrics=self._progress[:MOST_METRICS])
            del self._progress[:MOST_METRICS]

    def finish(self) -> None:
        """Write the files, and whether the run goes on, has ended, or was stopped."""
        if self._client is None:
            return
        for name in ARTIFACTS:
            path = self.run_dir / name
            if path.is_dir():
                self._client.log_artifacts(self._parent, str(path), name)
            elif path.exists():
                self._client.log_artifact(self._parent, str(path))
        self._write_front()
        chosen = self.state.decided.get("chosen")
        if chosen is not None:
            self._client.set_tag(self._parent, keys.CHOSEN, chosen)
            metrics = metrics_of(self.results, self.state.candidates[chosen])
            self._client.log_batch(self._parent, metrics=metrics)
        if self._has_ended():
            self._write_verdict()
        if self._goes_on():
            self._client.update_run(self._parent, "RUNNING")
        else:
            status = "FINISHED" if self._has_ended() else "KILLED"
            self._client.set_terminated(self._parent, status)

    def _write_verdict(self) -> None:
        """What is said of the final table, and the chosen model's shares of sick documents."""
        assert self._client is not None
        table = final_table(self.results)
        self._client.set_tag(self._parent, keys.VERDICT, "\n".join(verdict_lines(table))[:5000])
        note = search_note(self.results, table, self._experiment, self._children)
        self._client.set_tag(self._parent, NOTE, note)
        for name, run_id in self._children.items():
            candidate = self.state.candidates[name]
            if candidate.scores("validation") is not None:
                # What it is was decided behind its last score.
                note = candidate_note(self.results, candidate, self._recipe(candidate))
                self._client.set_tag(run_id, NOTE, note)
        # Baselines are what the search is compared with, and have no rank in it.
        known = self.state.candidates.values()
        searched = [c.id for c in known if c.is_searched and c.id in self._children]
        for rank, name in enumerate(self.results.ranked(searched, "validation"), 1):
            self._client.log_metric(self._children[name], "rank", rank)
        for entry in table.get("health", ()):
            share = entry["counts"].get(table["chosen"], 0) / entry["num_documents"]
            name = metric_name(f"health/{entry['task']}/{entry['sign']}")
            self._client.log_metric(self._parent, name, share)

    def _has_ended(self) -> bool:
        return self.state.stages.get("report") == "ended"

    def _goes_on(self) -> bool:
        """Whether a driver is at work on what is left of the run."""
        return not self._has_ended() and not self.is_ours and is_in_use(self.run_dir)

    def _write_front(self) -> None:
        """Tag who is on the front, so that the table of runs filters and sorts by it."""
        front = self.results.front
        if front is None:
            return
        assert self._client is not None
        self._client.log_metric(self._parent, "front/hypervolume", front.hypervolume)
        for entry in front.entries:
            place = "yes" if entry.place == "front" else entry.place
            numbers: dict[str, float] = {f"front/{n}": v for n, v in entry.values.items()}
            # A front that is decided anew can have another knee.
            is_knee = "yes" if entry.candidate == front.knee else "no"
            tags: dict[str, str] = {keys.FRONT: place, keys.KNEE: is_knee}
            if entry.rank is not None:
                numbers["front/rank"] = entry.rank
                tags[keys.RANK] = str(entry.rank)
            if entry.place == "front":
                # The ends of a front are as far from others as can be.
                crowding = math.inf if entry.crowding is None else entry.crowding
                numbers["front/crowding"] = crowding
                tags[keys.CROWDING] = f"{crowding:.4g}"
            at = milliseconds(self.state.candidates[entry.candidate].ended_at)
            self._client.log_batch(
                self._children[entry.candidate],
                metrics=[Metric(metric_name(n), v, at, 0) for n, v in numbers.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )

    def _connect(self) -> None:
        runs_dir = self.run_dir.parent
        uri = tracking_uri(self.run_dir)
        make_database(uri)
        client = MlflowClient(uri)
        name = self.settings["experiment"] or self.name
        local = uri.startswith("sqlite")
        location = (runs_dir / ARTIFACTS_DIR).as_uri() if local else None
        self._experiment = experiment_id(client, name, location)
        key = run_key(self.run_dir, self.state.started_at)
        parent = next(tagged(client, [self._experiment], {keys.RUN: key}), None)
        if parent is None:
            parent = client.create_run(
                self._experiment,
                start_time=milliseconds(self.state.started_at),
                run_name=self.run_dir.name,
                tags={keys.RUN: key, keys.RUN_DIR: str(self.run_dir)},
            )
        elif parent.info.status != "RUNNING" and self._goes_on():
            # It was stopped, and is taken up again.
            client.update_run(parent.info.run_id, "RUNNING")
        self._parent = parent.info.run_id
        note_place(self.run_dir, self._experiment, self._parent)
        started = self.state.started
        params = {"seed": started["seed"], "dimensions": len(self.state.dimensions(0))}
        params |= {f"pool/{n}": sha256[:16] for n, sha256 in started["pool_sha256"].items()}
        params |= {f"version/{n}": v for n, v in started["versions"].items()}
        client.log_batch(self._parent, params=params_of(params))
        self._children = {
            run.data.tags[keys.CANDIDATE]: run.info.run_id
            for run in tagged(client, [self._experiment], {keys.PARENT: self._parent})
            if keys.CANDIDATE in run.data.tags
        }
        for name, value in experiment_tags(self.results, self._experiment).items():
            client.set_experiment_tag(self._experiment, name, value)
        client.log_inputs(self._parent, datasets=datasets_of(self.state, SPLITS))
        self._client = client

    def _write_candidate(self, candidate: Candidate) -> None:
        client = self._client
        assert client is not None
        if candidate.id not in self._children:
            run = client.create_run(
                self._experiment,
                start_time=milliseconds(candidate.started_at),
                run_name=candidate.id,
                tags={
                    keys.PARENT: self._parent,
                    keys.CANDIDATE: candidate.id,
                    keys.ORIGIN: candidate.origin,
                    keys.RECIPE_SHA256: candidate.recipe_sha256,
                },
            )
            self._children[candidate.id] = run.info.run_id
        run_id = self._children[candidate.id]
        names = self.state.dimensions(candidate.phase)
        genome = dict(zip(names, candidate.genome or (), strict=False))
        params = params_of(genome)
        for start in range(0, len(params), BATCH):
            client.log_batch(run_id, params=params[start : start + BATCH])
        tags = [RunTag(keys.FAILED, candidate.failed[:500])] if candidate.failed else []
        if candidate.num_attempts and not tags and keys.FAILED in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, keys.FAILED)
        validated = candidate.measured.get("validation")
        if validated is not None and validated.weights_sha256 is not None:
            tags.append(RunTag(keys.WEIGHTS_SHA256, validated.weights_sha256))
        tags.append(RunTag(NOTE, candidate_note(self.results, candidate, self._recipe(candidate))))
        client.log_batch(run_id, metrics=metrics_of(self.results, candidate), tags=tags)
        scored = [split for split in SPLITS if candidate.scores(split) is not None]
        client.log_inputs(run_id, datasets=datasets_of(self.state, scored))
        client.set_terminated(
            run_id,
            "FAILED" if candidate.failed else "FINISHED",
            milliseconds(candidate.ended_at or candidate.started_at),
        )

    def _recipe(self, candidate: Candidate) -> str | None:
        path = self.run_dir / RECIPES_DIR / f"{candidate.id}.yaml"
        return path.read_text(encoding="utf-8") if path.exists() else None


def sync(run_dir: Path, *, is_ours: bool = False) -> None:
    """Bring MLflow to what the journal says, as the only writer; arguments as for the record."""
    record = MlflowRecord(run_dir, is_ours=is_ours)
    record.read()
    record.write()
    record.finish()


def follow(run_dir: Path) -> None:
    """Bring MLflow to what the journal says, as the only writer, until the driver has ended.

    The driver is at the other end of this process's input.

    Raises:
        MlflowException: MLflow refuses something, or is away at the end.
    """
    record = MlflowRecord(run_dir)
    ended, retry_at = False, 0.0
    while not ended:
        ended = _input_ended(POLL_S)
        if not (record.read() or ended or retry_at):
            continue
        if time.monotonic() < retry_at and not ended:
            continue
        try:
            record.write()
            retry_at = 0.0
            if ended:
                record.finish()
        except ERRORS as error:
            if ended or not passes(error):
                raise
            logger.warning("MLflow cannot be reached: %s", reason_of(error))
            retry_at = time.monotonic() + RETRY_S


def _input_ended(timeout_s: float) -> bool:
    """Wait; true once the process that feeds our input has closed it or is gone."""
    readable, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def main() -> int:
    """Sync a run folder, once or until its driver ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run_dir", type=Path)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="the journal, while its driver lives")
    how.add_argument("--locked", action="store_true", help="the parent process is the sole writer")
    arguments = parser.parse_args()
    log_to_stderr(logging.BASIC_FORMAT)
    run_dir: Path = arguments.run_dir
    try:
        if arguments.locked:
            sync(run_dir)
        else:
            # A search goes on with what another one's syncer has not written yet.
            with sole_writer(run_dir, math.inf if arguments.follow else WAIT_S):
                (follow if arguments.follow else sync)(run_dir)
    except ERRORS as error:
        what = "cannot be reached" if passes(error) else "refuses a part of the record"
        raise EvomergeError(f"MLflow {what}: {reason_of(error)}") from None
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EvomergeError as error:
        sys.exit(str(error))
