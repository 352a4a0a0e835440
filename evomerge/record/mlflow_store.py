"""MLflow's store: which of its errors pass, and runs found by their tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

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
