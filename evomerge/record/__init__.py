"""Journal, documents, MLflow record and report of a run."""

from evomerge.record.config import RecordConfig
from evomerge.record.documents import read_values, rows_for, write_part
from evomerge.record.journal import JOURNAL_FILE, Event, Journal, read_journal
from evomerge.record.results import Results
from evomerge.record.state import Candidate, Measured, RunState, normal_form

__all__ = [
    "JOURNAL_FILE",
    "Candidate",
    "Event",
    "Journal",
    "Measured",
    "RecordConfig",
    "Results",
    "RunState",
    "normal_form",
    "read_journal",
    "read_values",
    "rows_for",
    "write_part",
]
