"""Offline switches and one BLAS thread, before anything heavy is imported."""

from __future__ import annotations

import os

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        # Where a test asks for more, they are more than the idle cores.
        "OMP_WAIT_POLICY": "passive",
    }
)

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels for a GPU are run by Triton's interpreter.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def cluster():
    """The address of a Ray of our own, with room for several actors."""
    import ray

    from evomerge.workers import WorkersConfig
    from evomerge.workers.ray_cluster import start_ray, stop_ray

    assert start_ray(WorkersConfig(num_actors=4))
    yield ray.get_runtime_context().gcs_address
    stop_ray()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """MLflow's database without a run, to be copied: one takes seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def brief_bayesian(monkeypatch):
    """Bayesian optimization that looks at few points: where how well it finds them is no matter."""
    from evomerge.optimize import bayesian

    brief = {"NUM_SAMPLES": 8, "NUM_SCREENED": 16, "NUM_CLIMBED": 1, "MOST_STEPS": 3}
    for name, value in brief.items():
        monkeypatch.setattr(bayesian, name, value)
