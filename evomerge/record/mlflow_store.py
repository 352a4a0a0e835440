"""MLflow's store: which of its errors pass, and runs found by their tags."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from evomerge.record.numbers import metric_name

ERRORS = (MlflowException, RequestException, SQLAlchemyError, OSError)
"""What a call of MLflow's client raises where the store is away, or refuses something."""

_PASSING = (
    # The client's own where a server does not answer.
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "CANCELLED",
)


_SPECIAL = re.compile(r"[^A-Za-z0-9/.@:\u0080-\U0010ffff-]")
"""What may mean something in a filter; "_" in its place stands for any character there."""


def passes(error: Exception) -> bool:
    """Whether the same call may succeed later: the store is away, or busy."""
    return not isinstance(error, MlflowException) or error.error_code in _PASSING


def reason_of(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def run_key(run_dir: Path, started_at: float) -> str:
    """What a run is known by, the parent run's tag `evomerge.run`: a copy elsewhere is another.

    Args:
        run_dir: The run folder, absolute.
        started_at: When the run started, seconds since 1970.
    """
    return f"{run_dir}@{started_at!r}"


def tagged(
    client: MlflowClient, experiments: Sequence[str], tags: Mapping[str, str]
) -> Iterator[Any]:
    """Runs that have these tags.

    Args:
        client: MLflow's.
        experiments: Where to look, by id.
        tags: Values by name; any text.
    """
    # MLflow's filters know no escapes: a value with both kinds of quotes cannot be written.
    conditions = [
        f"tags.`{name}` LIKE '{_SPECIAL.sub('_', value)}'" for name, value in tags.items()
    ]
    query = " AND ".join(conditions)
    for run in pages(client.search_runs, list(experiments), query, max_results=1000):
        if all(run.data.tags.get(name) == value for name, value in tags.items()):
            yield run


def pages(search: Any, *arguments: Any, **keywords: Any) -> Iterator[Any]:
    """What a search of MLflow's client finds, on all its pages."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **keywords)
        yield from page
        token = page.token
        if not token:
            return


def params_of(values: dict[str, Any]) -> list[Param]:
    """Values as MLflow's parameters."""
    return [
        Param(metric_name(name), repr(v) if isinstance(v, float) else str(v))
        for name, v in values.items()
    ]


def experiment_id(client: MlflowClient, name: str, location: str | None) -> str:
    """An experiment's id; made where there is none, by us or by another run's syncer."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
    return experiment.experiment_id


def make_database(uri: str) -> None:
    """Put a new SQLite store in place whole; MLflow cannot use one that it was killed making."""
    url = make_url(uri) if uri.startswith("sqlite:") else None
    if url is None or not url.database or Path(url.database).exists():
        return
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder, path.name)
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        # The link fails where another process was first, or where links do not exist: there
        # MLflow makes the store in its place.
        with contextlib.suppress(OSError):
            os.link(made, path)
