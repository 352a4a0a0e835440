"""The `space` section: which numbers of a merge may vary, and how finely."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from evomerge.methods import METHODS, MethodConfig
from evomerge.recipe import Component, Selector
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


class GroupConfig(Section):
    """A layer group of one's own: the tensors that agree with all that is said.

    Attributes:
        name: The group's name, which is a part of the names of its dimensions.
        layers: Transformer blocks by index; "outside" are the tensors in no block.
        components: Kinds of tensors.
        names: Parts of names; a tensor belongs to the group if its name has any of them.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    layers: tuple[int | Literal["outside"], ...] | None = None
    components: tuple[Component, ...] | None = None
    names: tuple[str, ...] | None = None

    @property
    def selector(self) -> Selector:
        """Its tensors."""
        return Selector(layers=self.layers, components=self.components, names=self.names)


def _kind_of_groups(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, dict | GroupingConfig):
        return "mapping"
    return "number" if isinstance(value, int) else "word"


def _names_differ(groups: tuple[GroupConfig, ...]) -> tuple[GroupConfig, ...]:
    names = [group.name for group in groups]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two groups are called {name!r}")
    return groups


_Word = Annotated[Literal["whole", "layer"], Tag("word")]
_Number = Annotated[int, Field(ge=1), Tag("number")]
_List = Annotated[
    tuple[GroupConfig, ...], Field(min_length=1), AfterValidator(_names_differ), Tag("list")
]

Groups = Annotated[_Word | _Number | _List, Discriminator(_kind_of_groups)]


def _check_components(groups: Any, components: bool) -> None:
    if components and isinstance(groups, tuple):
        raise ValueError(
            "components: true cuts groups that are not listed; say under groups which components "
            "each has"
        )


class GroupingConfig(Section):
    """Groups and whether they are cut by components.

    Attributes:
        groups: See `ParameterSpaceConfig`.
        components: See `ParameterSpaceConfig`.
    """

    groups: Groups = "whole"
    components: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _check_components(self.groups, self.components)
        return self


GroupsOf = Annotated[
    _Word | _Number | _List | Annotated[GroupingConfig, Tag("mapping")],
    Discriminator(_kind_of_groups),
]


class ParameterSpaceConfig(Choice):
    """Parameter space: a method's numbers for each expert and layer group.

    Attributes:
        kind: The space.
        method: The merge method and its options.
        methods: Several methods in the place of one; each layer group chooses. A number that only
            some of them have counts where one of those is chosen.
        experts: Names of the experts to merge; by default all.
        subset: Whether each expert is in the merge or not; with none the candidate is the base.
        groups: "whole": one group; a number n: the blocks in n contiguous groups, embeddings with
            the first and final norm and head with the last; "layer": every block, the input
            embedding and the output each a group; a list: groups of one's own, that cover every
            tensor (the first that selects a tensor has it).
        components: Attention, MLP and norms of a group apart, and embedding and head by
            themselves.
        groups_of: Parameters with groups of their own in the place of `groups`, as `groups` or
            with `components` (a choice of method has `groups`). Tensors that share all their
            groups are one part of a recipe.
        vary: Ranges by parameter of the method; by default every number that varies, in
            [0, 1] (of the density of DELLA, which its epsilon is added to and taken from, in
            [0.2, 0.8]).
            The first words of a dimension's name, where "*" stands for any, give some of a
            parameter's numbers a range of their own: "weight/math", "density/*/embedding".
        fix: Values of parameters that do not vary, or of some of their numbers ("weight/*/head"),
            of an expert's use ("use/math") or of a group's method ("method/head").
        over_depth: Parameters that follow the depth, and how many control points each has: they
            lie evenly over the layers that a curve goes through, straight lines between them. What
            is outside the layers takes the first (embeddings) or the last (final norm, head).
            There is one curve for each expert, and for each component or group of one's own.
        weights_sum: "free", or "one": a group's weights, or those of a control point, are divided
            by their sum (all zero: they are equal); where the range allows negative ones, the same
            is added to each instead, as far as the range goes.
        mask_seed: Seeds the masks of methods that drop elements at random.
        fused_experts: "single": methods that trim or measure a tensor do so for each expert of a
            mixture by itself; by default all experts of a layer are one tensor, as in memory.
    """

    kind: Literal["parameter"] = "parameter"
    method: Annotated[MethodConfig, METHODS] | None = None
    methods: tuple[Annotated[MethodConfig, METHODS], ...] = ()
    experts: tuple[str, ...] | None = None
    subset: bool = False
    groups: Groups = "whole"
    components: bool = False
    groups_of: dict[str, GroupsOf] = Field(default_factory=dict)
    vary: dict[str, Range] | None = None
    fix: dict[str, float] = Field(default_factory=dict)
    over_depth: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    weights_sum: Literal["free", "one"] = "free"
    mask_seed: int = 0
    fused_experts: Literal["single"] | None = None

    @property
    def groupings(self) -> dict[str | None, GroupingConfig]:
        """The groups of the parameters that have their own, by name, behind those of all else."""
        found: dict[str | None, GroupingConfig] = {
            None: GroupingConfig(groups=self.groups, components=self.components)
        }
        for name, given in self.groups_of.items():
            own = given if isinstance(given, GroupingConfig) else GroupingConfig(groups=given)
            found[name] = own
        return found

    @property
    def choices(self) -> tuple[MethodConfig, ...]:
        """The methods that a layer group chooses from; mostly one."""
        return self.methods if self.method is None else (self.method,)

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, value: tuple[MethodConfig, ...]) -> tuple[MethodConfig, ...]:
        if len(value) == 1:
            raise ValueError("a choice is of two methods or more; one alone is `method`")
        for method in value:
            if value.count(method) > 1:
                raise ValueError(f"{method.kind} stands here twice with the same options")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.method is None and not self.methods:
            raise ValueError("method: this field is required, or methods, to choose from")
        if self.method is not None and self.methods:
            raise ValueError("give method, or methods to choose from, and not both")
        _check_components(self.groups, self.components)
        return self


SPACES: Registry[Space] = Registry("space", "evomerge.spaces", default="parameter")

SpaceSection = Annotated[Choice, SPACES]
