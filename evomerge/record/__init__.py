"""What people see of a run: MLflow, the report, and its pictures."""

from evomerge.record.config import RecordConfig
from evomerge.record.results import Results

__all__ = ["RecordConfig", "Results"]
