"""What a merge in one pass has to add up: the same for loops on a CPU and kernels on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from evomerge.methods.dare import Dare
from evomerge.methods.linear import Linear
from evomerge.methods.masks import limit
from evomerge.methods.protocol import Coefficients, Method, Operands, Statistics
from evomerge.methods.quantiles import Bracket
from evomerge.methods.task_arithmetic import TaskArithmetic
from evomerge.methods.ties import Ties

Floats = tuple[float, ...]


@dataclass(frozen=True)
class ModelSum:
    """sum_i w_i theta_i / divisor, of the models whose weight is not zero."""

    models: tuple[Tensor, ...]
    weights: Floats
    divisor: float


@dataclass(frozen=True)
class VectorSum:
    """theta_0 + scale * sum_i w_i tau_i, of the models whose weight is not zero."""

    base: Tensor
    models: tuple[Tensor, ...]
    weights: Floats
    scale: float


@dataclass(frozen=True)
class MaskedSum:
    """theta_0 + scale * the sum of masked task vectors, or of what agrees of them; see `Dare`.

    Attributes:
        base: The base's numbers.
        models: The models'.
        uniforms: Of each model, uint16; an element is kept where its uniform is at most the last.
        lasts: Of each model, 0 to 65535.
        factors: Of what is kept of each.
        votes: What each divides by where it agrees, or None.
        scale: Of the merged task vector.
        elect: Whether only what agrees with the elected sign is added.
    """

    base: Tensor
    models: tuple[Tensor, ...]
    uniforms: tuple[Tensor, ...]
    lasts: tuple[int, ...]
    factors: Floats
    votes: Floats | None
    scale: float
    elect: bool


@dataclass(frozen=True)
class TrimmedSum:
    """theta_0 + scale * what agrees of trimmed task vectors; see `Ties`.

    Attributes:
        base: The base's numbers.
        models: The models'.
        brackets: Where the least magnitude that each keeps is.
        weights: Of each.
        votes: What each divides by where it agrees, or None.
        scale: Of the merged task vector.
    """

    base: Tensor
    models: tuple[Tensor, ...]
    brackets: tuple[Bracket, ...]
    weights: Floats
    votes: Floats | None
    scale: float

    @property
    def is_exact(self) -> bool:
        """Whether the thresholds are known without looking."""
        return all(where.is_exact for where in self.brackets)


Terms = ModelSum | VectorSum | MaskedSum | TrimmedSum


def tensors_of(terms: Terms) -> tuple[Tensor, ...]:
    """The numbers that are merged."""
    return terms.models if isinstance(terms, ModelSum) else (terms.base, *terms.models)


def terms_of(
    method: Method, whole: Operands, statistics: Statistics, coefficients: Coefficients
) -> Terms | None:
    """What a method adds up of a tensor.

    Args:
        method: How to merge.
        whole: The tensor's numbers.
        statistics: What was prepared of it, nothing settled.
        coefficients: Of the method.

    Returns:
        None where the method or its options cannot be had in one pass.
    """
    if isinstance(method, Linear):
        return _linear(method, whole, coefficients)
    if isinstance(method, TaskArithmetic):
        return _task_arithmetic(method, whole, coefficients)
    if not statistics or method.needs.whole_tensor or method.needs.whole_model:
        return None
    if isinstance(method, Ties):
        return _ties(method, whole, statistics, coefficients)
    if isinstance(method, Dare):
        return _dare(method, whole, statistics, coefficients)
    return None


def _linear(method: Linear, whole: Operands, coefficients: Coefficients) -> Terms | None:
    weights = coefficients["weight"]
    present = [i for i, weight in enumerate(weights) if weight != 0.0]
    if not present:
        return None
    return ModelSum(
        models=tuple(whole.models[i] for i in present),
        weights=tuple(weights[i] for i in present),
        divisor=sum(weights) if method.normalize else 1.0,
    )


def _task_arithmetic(
    method: TaskArithmetic, whole: Operands, coefficients: Coefficients
) -> Terms | None:
    weights = coefficients["weight"]
    present = [i for i, weight in enumerate(weights) if weight != 0.0]
    if not present:
        return None
    assert whole.base is not None
    return VectorSum(
        base=whole.base,
        models=tuple(whole.models[i] for i in present),
        weights=tuple(weights[i] for i in present),
        scale=method.total_scale(coefficients),
    )


def _dare(
    method: Dare, whole: Operands, statistics: Statistics, coefficients: Coefficients
) -> Terms | None:
    weights, densities = coefficients["weight"], coefficients["density"]
    present = [i for i, w in enumerate(weights) if w != 0.0 and densities[i] > 0.0]
    if not present:
        return None
    assert whole.base is not None
    factors = method.factors(coefficients)
    return MaskedSum(
        base=whole.base,
        models=tuple(whole.models[i] for i in present),
        uniforms=tuple(statistics[i] for i in present),
        # Written so that density 1 fits 16 bits.
        lasts=tuple(limit(densities[i]) - 1 for i in present),
        factors=tuple(factors[i] for i in present),
        votes=tuple(weights[i] for i in present) if method.normalize else None,
        scale=method.total_scale(coefficients),
        elect=method.elect,
    )


def _ties(
    method: Ties, whole: Operands, statistics: Statistics, coefficients: Coefficients
) -> Terms:
    assert whole.base is not None
    weights = tuple(coefficients["weight"])
    return TrimmedSum(
        base=whole.base,
        models=whole.models,
        brackets=tuple(method.brackets(whole, statistics, coefficients["density"])),
        weights=weights,
        votes=weights if method.normalize else None,
        scale=coefficients["scale"][0],
    )
