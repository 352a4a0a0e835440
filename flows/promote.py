"""Models that were picked in MLflow, or named here, as checkpoints: one task a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from evomerge.choice import read_weights
from evomerge.errors import EvomergeError, InputError, NotNowError
from evomerge.journal.folder import DATABASE_FILE, RUNS_DIR
from evomerge.promote import Promotion, promotion_table
from evomerge.promote import promote as promote_candidate
from evomerge.promote import promote_pick as promote_mlflow_run
from evomerge.record.picks import picked
from evomerge.search import Result


@task(cache_policy=NO_CACHE, persist_result=False)
def promote_model(run_dir: Path, candidate: str, uri: str | None) -> Promotion:
    """Promote a candidate of a run folder."""
    return promote_candidate(run_dir, candidate, uri=uri)


@task(cache_policy=NO_CACHE, persist_result=False)
def promote_pick(
    run_id: str, uri: str, runs_dir: Path | None, *, can_wait: bool
) -> Promotion | None:
    """Promote the candidate of an MLflow run; None where its run is in use and it can wait."""
    try:
        return promote_mlflow_run(run_id, uri, runs_dir)
    except NotNowError as error:
        if not can_wait:
            raise
        get_run_logger().info("MLflow run %s is left for the next time: %s", run_id, error)
        return None


@flow(name="promote", validate_parameters=True)
def promote(
    run_id: str | None = None,
    run_dir: Path | None = None,
    candidate: str | None = None,
    prefer: dict[str, float] | str | None = None,
    tracking_uri: str | None = None,
    runs_dir: Path | None = None,
) -> Any:
    """Write, check and register models; by default those picked in MLflow since the last time.

    Args:
        run_id: An MLflow run of a candidate.
        run_dir: A run folder.
        candidate: The run folder's candidate; by default the chosen one.
        prefer: Instead of a candidate, preferences by objective, such as "sort=0.7,reverse=0.3":
            the model of the run's front that is best for them.
        tracking_uri: The MLflow store; by default runs/mlflow.db, with `run_dir` that of its run.
        runs_dir: Run folders of picked models lie in here, whatever MLflow says; by default beside
            the store's database, or in runs where the store is a server.

    Returns:
        The models' folders.
    """
    uri = tracking_uri or f"sqlite:///{(RUNS_DIR / DATABASE_FILE).resolve()}"
    states: list[State[Any]]
    if run_id is not None and run_dir is None and candidate is None and prefer is None:
        states = [promote_pick(run_id, uri, runs_dir, can_wait=False, return_state=True)]
    elif run_dir is not None and run_id is None:
        name = _candidate(run_dir, candidate, prefer)
        states = [promote_model(run_dir, name, tracking_uri, return_state=True)]
    elif run_id is not None or candidate is not None or prefer is not None:
        raise InputError("promote: give `run_id`; or `run_dir`, with `candidate` or `prefer`")
    else:
        picks = picked(uri)
        get_run_logger().info("%d picked in %s", len(picks), uri)
        if not picks:
            return Completed(message=f"nothing is picked in {uri}", data=[])
        states = [
            promote_pick(pick, uri, runs_dir, can_wait=True, return_state=True) for pick in picks
        ]
    outcomes = [state.result(raise_on_failure=False) for state in states]
    promotions = [outcome for outcome in outcomes if isinstance(outcome, Promotion)]
    create_markdown_artifact(
        promotion_table(promotions),
        key="promoted",
        description="Models that were built, checked and registered.",
    )
    errors = [str(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise EvomergeError("\n".join(errors))
    return [str(promotion.model_dir) for promotion in promotions]


def _candidate(run_dir: Path, candidate: str | None, prefer: dict[str, float] | str | None) -> str:
    """The candidate that the parameters mean."""
    result = Result(run_dir)
    if candidate is not None and prefer is not None:
        raise InputError("promote: `candidate` or `prefer`, not both")
    if prefer is not None:
        preferences = read_weights("prefer", prefer) if isinstance(prefer, str) else prefer
        return result.pick(prefer=preferences, at_least=None)
    return candidate if candidate is not None else result.best
