"""What a person picked in MLflow, and where a promoted model is entered.

A pick is the tag `evomerge.pick = yes` on a candidate's run. A promoted model is a version in the
model registry that refers to the folder: tags on the candidate's run lead to both.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from evomerge.errors import EvomergeError, InputError, NotNowError
from evomerge.journal import JOURNAL_FILE, iterate
from evomerge.record import keys
from evomerge.record.config import tracking_uri
from evomerge.record.follow import ENVIRONMENT

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402  (telemetry is switched off before)
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models.model import MLMODEL_FILE_NAME  # noqa: E402
from mlflow.models.utils import get_external_mlflow_model_spec  # noqa: E402

from evomerge.record import mlflow_sync  # noqa: E402
from evomerge.record.mlflow_store import (  # noqa: E402
    ERRORS,
    pages,
    reason_of,
    run_key,
    tagged,
)
from evomerge.record.writer import sole_writer  # noqa: E402

ALIAS = "promoted"
"""The registered model's version that was promoted last."""


DESCRIPTION_CHARACTERS = 5000
"""What MLflow's databases hold of a version's description."""


def sync(run_dir: Path) -> None:
    """Bring MLflow to what a run's journal says, in this process, which has the run open.

    Raises:
        NotNowError: A syncer of the run has not ended.
        EvomergeError: MLflow could not be written.
    """
    with sole_writer(run_dir), _reaching(tracking_uri(run_dir)):
        mlflow_sync.sync(run_dir, is_ours=True)


def picked(uri: str) -> list[str]:
    """Runs that are picked and neither promoted nor refused yet, the oldest first.

    Args:
        uri: The tracking store; a SQLite file that does not exist has no picks.

    Raises:
        EvomergeError: MLflow cannot be reached.
    """
    url = make_url(uri) if uri.startswith("sqlite:") else None
    if url is not None and url.database and not Path(url.database).exists():
        return []
    with _mlflow(uri) as client:
        experiments = [e.experiment_id for e in pages(client.search_experiments)]
        runs = pages(
            client.search_runs,
            experiments,
            f"tags.`{keys.PICK}` ILIKE 'yes'",
            order_by=["attributes.start_time ASC"],
        )
        done = {keys.PROMOTED, keys.REFUSED}
        return [run.info.run_id for run in runs if not done & run.data.tags.keys()]


def locate(uri: str, run_id: str, runs_dir: Path) -> tuple[Path, str]:
    """The run folder and the candidate's id of an MLflow run.

    Args:
        uri: The tracking store.
        run_id: The candidate's run.
        runs_dir: Where run folders lie: whoever can write tags names any folder.

    Raises:
        InputError: It is no candidate's run, or the folder has another run by now.
        NotNowError: The folder is not here, or lies elsewhere.
        EvomergeError: MLflow cannot be reached, or has no such run.
    """
    with _mlflow(uri) as client:
        tags = client.get_run(run_id).data.tags
        if keys.CANDIDATE not in tags or keys.PARENT not in tags:
            raise InputError(
                f"MLflow run {run_id} is not a candidate's; pick one of the runs below a search's"
            )
        parent = client.get_run(tags[keys.PARENT]).data.tags
    run_dir = Path(parent[keys.RUN_DIR])
    if not run_dir.resolve().is_relative_to(runs_dir.resolve()):
        # The pick stays: a call with another `runs_dir` promotes it.
        raise NotNowError(
            f"MLflow run {run_id}: its run folder {run_dir} lies outside of {runs_dir.resolve()}\n"
            "the parameter `runs_dir` of the flow `promote` says where run folders lie"
        )
    if not (run_dir / JOURNAL_FILE).is_file():
        raise NotNowError(f"MLflow run {run_id}: its run folder {run_dir} is not here")
    event, _ = next(iterate(run_dir / JOURNAL_FILE, 0, 0))
    if parent[keys.RUN] != run_key(run_dir, event.time):
        raise InputError(f"MLflow run {run_id}: {run_dir} has another run than when it was made")
    return run_dir, tags[keys.CANDIDATE]


def run_of(uri: str, run_dir: Path, started_at: float, candidate: str) -> str:
    """Id of the MLflow run of a candidate.

    Args:
        uri: The tracking store.
        run_dir: The run folder, absolute.
        started_at: When its run started, seconds since 1970.
        candidate: The candidate's id.

    Raises:
        InputError: The store has no such run.
        EvomergeError: MLflow cannot be reached.
    """
    with _mlflow(uri) as client:
        experiments = [e.experiment_id for e in pages(client.search_experiments)]
        key = run_key(run_dir, started_at)
        for parent in tagged(client, experiments, {keys.RUN: key}):
            child = {keys.PARENT: parent.info.run_id, keys.CANDIDATE: candidate}
            for run in tagged(client, [parent.info.experiment_id], child):
                return str(run.info.run_id)
    raise InputError(f"the MLflow store {uri} has no run of {candidate} of {run_dir}")


def parent_of(run_dir: Path) -> tuple[str, str]:
    """Experiment and MLflow run of a search.

    Raises:
        InputError: MLflow has no record of it.
        EvomergeError: MLflow cannot be reached.
    """
    uri, whole = tracking_uri(run_dir), run_dir.resolve()
    event, _ = next(iterate(whole / JOURNAL_FILE, 0, 0))
    with _mlflow(uri) as client:
        experiments = [e.experiment_id for e in pages(client.search_experiments)]
        key = run_key(whole, event.time)
        for parent in tagged(client, experiments, {keys.RUN: key}):
            return str(parent.info.experiment_id), str(parent.info.run_id)
    raise InputError(
        f"the MLflow store {uri} has no record of {run_dir}; `evomerge sync {run_dir}` makes it"
    )


def refuse(uri: str, run_id: str, reason: str) -> None:
    """Say on a picked run why it is not promoted; taking the tag away picks it again."""
    with _mlflow(uri) as client:
        client.set_tag(run_id, keys.REFUSED, reason[:500])


def register(uri: str, run_id: str, name: str, model_dir: Path, tags: dict[str, str]) -> str:
    """Enter a promoted model in the registry and on its candidate's run.

    What is there already is left, so that a call that was cut off is completed by the next.

    Args:
        uri: The tracking store, which is the registry too.
        run_id: The candidate's run.
        name: The search's name, after which the registered model is named.
        model_dir: The checkpoint, with card and recipe.
        tags: The version's tags; a version is known by `evomerge.recipe_sha256` and its folder.

    Returns:
        NAME/VERSION.

    Raises:
        EvomergeError: MLflow cannot be reached.
    """
    model_name = "".join(c if c.isalnum() or c in "_- " else "_" for c in name)
    all_tags = tags | {keys.MODEL_DIR: str(model_dir)}
    card = (model_dir / "README.md").read_text(encoding="utf-8")
    with _mlflow(uri) as client:
        version = _version(client, model_name, all_tags)
        if version is None:
            model = _external_model(client, run_id, model_name, all_tags)
            # Not "models:/ID", which a database's client looks up in the global store.
            version = client.create_model_version(
                model_name,
                model.artifact_location,
                run_id,
                tags=all_tags,
                description=without_head(card)[:DESCRIPTION_CHARACTERS],
                model_id=model.model_id,
            ).version
        client.set_registered_model_alias(model_name, ALIAS, version)
        for file_name in ("README.md", "recipe.yaml"):
            client.log_artifact(run_id, str(model_dir / file_name), ALIAS)
        client.set_tag(run_id, keys.MODEL_VERSION, f"{model_name}/{version}")
        if keys.REFUSED in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, keys.REFUSED)
        # The last: a run with this tag is not promoted again.
        client.set_tag(run_id, keys.PROMOTED, str(model_dir))
    return f"{model_name}/{version}"


def without_head(card: str) -> str:
    """A model card without the YAML between its first two lines of dashes."""
    if not card.startswith("---\n"):
        return card
    _, _, text = card.removeprefix("---\n").partition("\n---\n")
    return text.lstrip() or card


def _version(client: MlflowClient, name: str, tags: dict[str, str]) -> str | None:
    """The version of this recipe in this folder; makes the registered model where there is none."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in pages(client.search_model_versions, f"name = '{name}'"):
        known = (keys.RECIPE_SHA256, keys.MODEL_DIR)
        if all(version.tags.get(tag) == tags[tag] for tag in known):
            return str(version.version)
    return None


def _external_model(client: MlflowClient, run_id: str, name: str, tags: dict[str, str]) -> Any:
    """MLflow's entry for a model that lies elsewhere; the one there is, if it is whole.

    Done by a client and not by `mlflow.create_external_model`, which writes to a global store.
    """
    experiment = client.get_run(run_id).info.experiment_id
    query = f"source_run_id = '{run_id}'"
    for model in pages(client.search_logged_models, [experiment], query):
        is_whole = str(model.status) == "READY"
        if is_whole and model.tags.get(keys.MODEL_DIR) == tags[keys.MODEL_DIR]:
            return model
    model = client.create_logged_model(
        experiment, name, run_id, tags | {"mlflow.model.isExternal": "true"}, None, "language model"
    )
    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(str(Path(folder, MLMODEL_FILE_NAME)))
        client.log_model_artifacts(model.model_id, folder)
    return client.finalize_logged_model(model.model_id, "READY")


@contextmanager
def _mlflow(uri: str) -> Iterator[MlflowClient]:
    with _reaching(uri):
        yield MlflowClient(uri, uri)


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise EvomergeError(f"MLflow at {uri}: {reason_of(error)}") from None
