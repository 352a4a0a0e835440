"""Ask/tell optimizers over boxes of numbers."""

from evomerge.optimize import any_nevergrad, cma, random_search
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Done,
    Failed,
    Goal,
    Optimizer,
    OptimizerConfig,
    Outcome,
    Scored,
    Told,
    Wait,
)

__all__ = [
    "OPTIMIZERS",
    "Ask",
    "Asked",
    "Box",
    "Done",
    "Failed",
    "Goal",
    "Optimizer",
    "OptimizerConfig",
    "Outcome",
    "Scored",
    "Told",
    "Wait",
    "any_nevergrad",
    "cma",
    "random_search",
]
