"""The merge engine: recipe and pool to weights."""

from evomerge.merge.engine import TORCH_DTYPES, Engine
from evomerge.merge.operands import lane_bytes
from evomerge.merge.residence import Residence

__all__ = ["TORCH_DTYPES", "Engine", "Residence", "lane_bytes"]
