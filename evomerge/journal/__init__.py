"""What a run is: its folder, its journal, its documents, and the state that they describe."""

from evomerge.journal.candidate import Candidate, Measured
from evomerge.journal.comparisons import ComparisonSet, Sampled
from evomerge.journal.documents import read_values, rows_for, write_part
from evomerge.journal.folder import CONFIG_FILE, JOURNAL_FILE
from evomerge.journal.journal import Event, Journal, check_is_run, iterate, read_journal
from evomerge.journal.state import RunState, apply_all, normal_form, replay

__all__ = [
    "CONFIG_FILE",
    "JOURNAL_FILE",
    "Candidate",
    "ComparisonSet",
    "Event",
    "Journal",
    "Measured",
    "RunState",
    "Sampled",
    "apply_all",
    "check_is_run",
    "iterate",
    "normal_form",
    "read_journal",
    "read_values",
    "replay",
    "rows_for",
    "write_part",
]
