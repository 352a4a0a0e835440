"""Who wins: combined scores, ranks, fronts, and differences that documents can tell."""

from evomerge.choice.front import Entry, Front, read_weights
from evomerge.choice.results import Results, goals

__all__ = ["Entry", "Front", "Results", "goals", "read_weights"]
