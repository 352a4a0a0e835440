"""Merge methods: small functions over blocks of numbers, and the registry of them."""

from evomerge.methods import (
    breadcrumbs,
    consensus_ta,
    dare,
    darex_q,
    della,
    linear,
    pcb,
    slerp,
    task_arithmetic,
    ties,
)
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Parameter,
    Statistics,
    Survey,
    WholeModelMethod,
)

__all__ = [
    "METHODS",
    "Coefficients",
    "Method",
    "MethodConfig",
    "Needs",
    "Operands",
    "Parameter",
    "Statistics",
    "Survey",
    "WholeModelMethod",
    "breadcrumbs",
    "consensus_ta",
    "dare",
    "darex_q",
    "della",
    "linear",
    "pcb",
    "slerp",
    "task_arithmetic",
    "ties",
]
