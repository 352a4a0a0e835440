"""Configuration of the spaces over the order of layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from evomerge.registry import Choice
from evomerge.space.config import ParameterSpaceConfig, Range

SCALES = Range(low=0.5, high=1.5, start=1.0)


class PathSpaceConfig(Choice):
    """Base of the spaces whose candidates are paths.

    Attributes:
        models: Whose layers: names of the pool's models, and "merged" for the winner of an earlier
            phase. The first, model A, gives embeddings, final norm and head. By default the
            earlier phase's winner, if there is one, and all experts.
    """

    models: tuple[str, ...] | None = None


class LayerOrderConfig(PathSpaceConfig):
    """Any path: the layers of all models in sequence, that sequence repeated, each in or out.

    Akiba et al. 2024 (arXiv 2403.13187), section 3.2. The first candidate is model A.

    Attributes:
        kind: The space.
        repetitions: Times that the sequence stands behind itself (r).
        encoding: "binary": a bit for each place, and the scales of places that are out neither
            vary nor count; "continuous", as published: a number for each place, in when positive.
        scaling: Factors of the layers' inputs: "none"; "hop": one for each place; "matrix": one
            for each pair of layers that follow each other; "network": a small network of the two
            layers and the step.
        scale: Range of a factor.
        hidden: Units of the network.
        ends: "fixed", as published: the path starts with A's first and ends with A's last layer;
            or "free".
        max_hops: Most hops of a path. What is over it is left out: by the continuous encoding the
            least numbers, by the binary one the last places.
        max_distinct: Most different layers of a path.
    """

    kind: Literal["layer_order"] = "layer_order"
    repetitions: int = Field(default=1, ge=1)
    encoding: Literal["binary", "continuous"] = "binary"
    scaling: Literal["none", "hop", "matrix", "network"] = "hop"
    scale: Range = SCALES
    hidden: int = Field(default=8, ge=1)
    ends: Literal["fixed", "free"] = "fixed"
    max_hops: int | None = Field(default=None, ge=2)
    max_distinct: int | None = Field(default=None, ge=2)

    @field_validator("scale")
    @classmethod
    def _starts_at_one(cls, value: Range) -> Range:
        if not value.low <= 1.0 <= value.high or value.start not in (None, 1.0):
            raise ValueError("the first candidate's scales are 1: the range must hold 1")
        return Range(low=value.low, high=value.high, start=1.0)


class SlicesConfig(PathSpaceConfig):
    """Contiguous slices in A's own depth: cut points, and which model owns each slice.

    Attributes:
        kind: The space.
        slices: How many.
    """

    kind: Literal["slices"] = "slices"
    slices: int = Field(default=3, ge=2)


class RemoveLayersConfig(PathSpaceConfig):
    """Model A without some of its layers.

    Attributes:
        kind: The space.
        remove: How many layers.
        up_to: Whether fewer may be left out, or none: for an objective that counts layers.
    """

    kind: Literal["remove_layers"] = "remove_layers"
    remove: int = Field(default=1, ge=1)
    up_to: bool = False


class RepeatSpanConfig(PathSpaceConfig):
    """Model A with a span of its layers run more than once.

    Attributes:
        kind: The space.
        max_repeats: Most extra runs of the span; the genome's other numbers are its first layer
            and its length.
    """

    kind: Literal["repeat_span"] = "repeat_span"
    max_repeats: int = Field(default=1, ge=1)


class LayerSwapConfig(Choice):
    """Bottom and top layers of one expert around the middle of another, at their own depths.

    Layer swapping (Bandarkar et al., ICLR 2025): the recipe merges, no layer changes its place.

    Attributes:
        kind: The space.
        outer: The expert of the bottom, the top, and what lies outside the layers.
        inner: The expert of the middle.
        transition: Whether the widths of the transitions vary too: layers between the two that
            are the average of both.
    """

    kind: Literal["layer_swap"] = "layer_swap"
    outer: str
    inner: str
    transition: bool = True


class JointSpaceConfig(Choice):
    """The numbers of a merge and the path through its layers in one genome.

    Attributes:
        kind: The space.
        parameter: The merge; paths call its model "merged".
        order: The path; `max_hops` is its depth budget. Its models are by default "merged" and all
            experts.
    """

    kind: Literal["joint"] = "joint"
    parameter: ParameterSpaceConfig
    order: LayerOrderConfig = LayerOrderConfig()
