"""The `Method` joint: what every merge method declares and does.

A method sees one tensor of the pool at a time, flattened, whole in `prepare` and in blocks in
`combine`; it knows numbers only. Blocks have shape [n]; arithmetic is float32.

A method is a subclass of `Method` with `parameters`, `needs`, and `combine` or `terms`. One whose
result is a sum that the module `terms` knows says so in `Method.terms`, and is merged in one pass
over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from evomerge.methods.terms import ModelSum, Terms, VectorSum
from evomerge.registry import Choice, Registry


@dataclass(frozen=True)
class Parameter:
    """A number of a method that a search may vary.

    Attributes:
        name: "weight", "density", "t", ...
        default: The value where nothing is said.
        low: Least value allowed, or None.
        high: Greatest value allowed, or None.
        scope: "model": one value for each merged model; "shared": one for the whole merge.
        varies: Whether a search varies it when the config does not say.
        usual: Where a search looks when the config does not say.
    """

    name: str
    default: float
    low: float | None
    high: float | None
    scope: Literal["model", "shared"]
    varies: bool = True
    usual: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Needs:
    """What a method must be given.

    Attributes:
        base: The base's numbers.
        num_models: So many models and no others.
        least_models: So many models or more.
        weight_sum: Weights whose sum is not near zero: the method divides by it.
        whole_tensor: Whole tensors in the place of blocks.
        whole_model: Statistics of all tensors, which `survey` gives.
    """

    base: bool
    num_models: int | None = None
    least_models: int = 1
    weight_sum: bool = False
    whole_tensor: bool = False
    whole_model: bool = False


@dataclass(frozen=True)
class Operands:
    """One tensor of the pool, or a block of it, flattened.

    Attributes:
        name: The tensor's name.
        base: The base's numbers, shape [n], any floating dtype; None when the method needs none.
        models: The merged models' numbers, each of shape [n].
        model_hashes: Their SHA-256, which seed random masks.
        offset: Index of the block's first element in its tensor.
        shape: The whole tensor's.
    """

    name: str
    base: Tensor | None
    models: tuple[Tensor, ...]
    model_hashes: tuple[str, ...]
    offset: int
    shape: tuple[int, ...]

    @property
    def is_vector(self) -> bool:
        """Whether the tensor has at most one dimension (norm gains, biases)."""
        return len(self.shape) <= 1

    @property
    def device(self) -> torch.device:
        """Where all numbers lie."""
        return self.models[0].device


Coefficients = dict[str, tuple[float, ...]]
"""Values by parameter name: one for each model, or a single one for a shared parameter."""

Statistics = tuple[Tensor, ...]
"""What `prepare` keeps of a tensor; free of coefficients, so that a search computes it once."""


Survey = Callable[[], Iterable[tuple[Operands, Statistics]]]
"""All tensors of the pool, whole, with what was prepared of them; can be gone through again."""


class Method:
    """How models are combined, element by element or tensor by tensor.

    Attributes:
        parameters: The numbers that the method takes.
        needs: What it must be given.
    """

    parameters: tuple[Parameter, ...]
    needs: Needs

    def __init__(self, config: Any) -> None:
        """Take the settings; they are of the class that the kind is registered with."""

    def check(self, coefficients: Coefficients) -> None:
        """Refuse coefficients that give no model; by default all do.

        Raises:
            CandidateError: They do not, for example because weights sum to zero.
        """

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """Compute what depends on the pool's numbers only; by default nothing.

        Args:
            whole: A whole tensor of the pool.
            mask_seed: The recipe's seed of random masks.
        """
        return ()

    def settle(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Statistics:
        """Compute what must be known of a whole tensor before its blocks are combined.

        Returns:
            What `combine` finds behind what was prepared; by default nothing.
        """
        return ()

    def survey(self, tensors: Survey, coefficients: Coefficients) -> Statistics:
        """Compute what must be known of all tensors, where `needs.whole_model` says so.

        Returns:
            What `combine` finds behind a tensor's statistics.
        """
        return ()

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """Say what the result of a tensor is a sum of, for the loops that merge in one pass.

        They must give what `combine` gives, bit for bit.

        Args:
            whole: A whole tensor of the pool; for a method that leaves `combine` out, a block too.
            statistics: What was prepared of it, nothing settled.
            coefficients: Of the method.

        Returns:
            None, the default, where it is none of these sums: blocks are combined then.
        """
        return None

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """Combine a block; by default what a plain sum of `terms` comes to.

        Args:
            block: A block of a tensor; the whole tensor where `needs.whole_tensor` says so.
            statistics: What was prepared, settled and surveyed, in this order.
            coefficients: Of the method.

        Returns:
            Float32 numbers of the block's shape [n].
        """
        terms = self.terms(block, statistics, coefficients)
        assert isinstance(terms, ModelSum | VectorSum), "a method without such terms must combine"
        return terms.combined()


METHODS: Registry[Method] = Registry("method", "evomerge.methods")


class MethodConfig(Choice):
    """Base of every method's settings; subclasses add a `kind` and their options.

    Attributes:
        added: Options that came later than the method: at their default they are no part of a
            recipe's hash, so that older recipes keep theirs.
    """

    added: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """What a recipe's hash is made from."""
        content = self.model_dump(mode="json")
        for name in self.added:
            if content[name] == type(self).model_fields[name].default:
                del content[name]
        return content
