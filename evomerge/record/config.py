"""The `record` section: where MLflow is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import yaml
from pydantic import field_validator

from evomerge.errors import InputError
from evomerge.journal.folder import CONFIG_FILE, DATABASE_FILE
from evomerge.registry import Section

SECRET_PARAMETERS = {"password", "passwd", "sslpassword", "token", "access_token", "api_key"}

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "databricks")


class RecordConfig(Section):
    """How a run is recorded in MLflow.

    Attributes:
        enabled: Whether a syncer follows the run; `evomerge sync` records it later all the same.
        tracking_uri: An MLflow tracking server or database; by default `mlflow.db` beside the
            run folder.
        experiment: MLflow's experiment; by default the search's name.
    """

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str | None = None

    @field_validator("tracking_uri")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        scheme = parts.scheme.partition("+")[0]
        host_missing = scheme in ("http", "https") and not parts.hostname
        if scheme not in SCHEMES or host_missing or (scheme == "sqlite" and not parts.path):
            raise ValueError(
                "not a tracking server's address; valid: http://HOST:PORT or sqlite:///FILE"
            )
        return value


def refuse_secrets(config: RecordConfig, place: str) -> None:
    """Refuse an address with a password: it would be in the run's files, for all who see them.

    Args:
        config: The section.
        place: Where it is written, for the message.

    Raises:
        InputError: The address has one.
    """
    parts = urlsplit(config.tracking_uri or "")
    is_web = parts.scheme in ("http", "https")
    in_query = {name.lower() for name, _ in parse_qsl(parts.query)} & SECRET_PARAMETERS
    if parts.password is not None or (is_web and parts.username is not None) or in_query:
        valid = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            if is_web
            else "PGPASSWORD, or the file ~/.pgpass,"
        )
        raise InputError(
            f"{place}record.tracking_uri has a password, which everybody who sees the run or the "
            f"deployment could read\nleave it out, and set {valid} where the search runs"
        )


def tracking_uri(run_dir: Path) -> str:
    """MLflow's address for a run: the configuration's, or the database beside the run folder."""
    config = yaml.safe_load((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    given: str | None = config["record"]["tracking_uri"]
    return given or f"sqlite:///{run_dir.resolve().parent / DATABASE_FILE}"
