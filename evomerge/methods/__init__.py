"""Merge methods: small functions over blocks of numbers, and the registry of them."""

from evomerge.methods import (
    dare,
    karcher,
    linear,
    multislerp,
    nuslerp,
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
    "dare",
    "karcher",
    "linear",
    "multislerp",
    "nuslerp",
    "slerp",
    "task_arithmetic",
    "ties",
]
