"""The merge engine: recipe and pool to weights."""

from evomerge.merge.engine import TORCH_DTYPES, Engine

__all__ = ["TORCH_DTYPES", "Engine"]
