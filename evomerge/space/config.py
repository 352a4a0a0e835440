"""The `space` section: which numbers of a merge may vary, and how finely."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evomerge.methods import METHODS, MethodConfig
from evomerge.registry import Choice, Registry, Section
from evomerge.space.protocol import Space


class Range(Section):
    """Where a number may lie and where the search starts.

    Attributes:
        low: Least value.
        high: Greatest value.
        start: First guess; by default the middle.
    """

    low: float = 0.0
    high: float = 1.0
    start: float | None = None

    @property
    def middle(self) -> float:
        """The first guess."""
        return (self.low + self.high) / 2 if self.start is None else self.start

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if not self.low <= self.middle <= self.high:
            raise ValueError(f"start {self.start} must lie in {self.low} to {self.high}")
        return self


class ParameterSpaceConfig(Choice):
    """Parameter space: a method's numbers for each expert and layer group.

    Attributes:
        kind: The space.
        method: The merge method and its options.
        experts: Names of the experts to merge; by default all.
        groups: "whole": one group; a number n: the blocks in n contiguous groups, embeddings with
            the first and final norm and head with the last; "layer": every block, the input
            embedding and the output each a group.
        components: Attention, MLP and norms of a group apart, and embedding and head by
            themselves.
        vary: Ranges by parameter of the method; by default every number that varies, in [0, 1].
        fix: Values of parameters that do not vary.
        mask_seed: Seeds the masks of methods that drop elements at random.
    """

    kind: Literal["parameter"] = "parameter"
    method: Annotated[MethodConfig, METHODS]
    experts: tuple[str, ...] | None = None
    groups: Literal["whole", "layer"] | Annotated[int, Field(ge=1)] = "whole"
    components: bool = False
    vary: dict[str, Range] | None = None
    fix: dict[str, float] = Field(default_factory=dict)
    mask_seed: int = 0


SPACES: Registry[Space] = Registry("space", "evomerge.spaces", default="parameter")

SpaceSection = Annotated[Choice, SPACES]
