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

import torch

if not torch.cuda.is_available():
    # Kernels for a GPU are run by Triton's interpreter.
    os.environ["TRITON_INTERPRET"] = "1"
