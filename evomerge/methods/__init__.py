"""Merge methods: small functions over blocks of numbers, and the registry of them."""

from evomerge.methods import dare, iso_c, linear, opcm, slerp, task_arithmetic, ties, tsv_m
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
    "iso_c",
    "linear",
    "opcm",
    "slerp",
    "task_arithmetic",
    "ties",
    "tsv_m",
]
