"""Ask/tell optimizers over boxes of numbers."""

from evomerge.optimize import (
    any_nevergrad,
    bayesian,
    cma,
    map_optimizer,
    nested_map,
    nevergrad_front,
    nsga2,
    random_search,
    scalarized_cma,
)
from evomerge.optimize.base import BaseOptimizer
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
    Point,
    Scored,
    Steered,
    Told,
    Wait,
)

DEFAULT_OPTIMIZER: OptimizerConfig = cma.CmaConfig()
"""That of a search which names none."""

__all__ = [
    "DEFAULT_OPTIMIZER",
    "OPTIMIZERS",
    "Ask",
    "Asked",
    "BaseOptimizer",
    "Box",
    "Done",
    "Failed",
    "Goal",
    "Optimizer",
    "OptimizerConfig",
    "Outcome",
    "Point",
    "Scored",
    "Steered",
    "Told",
    "Wait",
    "any_nevergrad",
    "bayesian",
    "cma",
    "map_optimizer",
    "nested_map",
    "nevergrad_front",
    "nsga2",
    "random_search",
    "scalarized_cma",
]
