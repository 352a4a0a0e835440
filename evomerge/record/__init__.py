"""What people see of a run: MLflow, the report, and its pictures."""

from evomerge.record.config import RecordConfig

__all__ = ["RecordConfig"]
