"""What a person sees in a terminal."""

from evomerge.terminal.display import Display
from evomerge.terminal.looks import (
    print_candidate,
    print_comparison,
    print_explanation,
    print_pairs,
    print_runs,
)
from evomerge.terminal.results import print_front, print_result

__all__ = [
    "Display",
    "print_candidate",
    "print_comparison",
    "print_explanation",
    "print_front",
    "print_pairs",
    "print_result",
    "print_runs",
]
