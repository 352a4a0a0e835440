"""Recipe: what one candidate is, completely, so that it can be rebuilt bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from evomerge.errors import InputError
from evomerge.files import canonical_json, sha256_json
from evomerge.methods import METHODS, MethodConfig
from evomerge.methods.linear import LinearConfig
from evomerge.mistakes import explain
from evomerge.plain_yaml import dump_plain
from evomerge.reading import compose_and_load, read_text
from evomerge.registry import Section
from evomerge.tokens import Vocabulary

SCHEMA_VERSION = 2
"""The newest of a recipe. 2: kinds of tensors are read by the rules that know mixers and more; a
recipe has it only where that makes a difference."""

Component = Literal["embedding", "attention", "mlp", "norm", "head", "mixer", "per_layer", "other"]
Dtype = Literal["float32", "bfloat16", "float16"]


class Member(Section):
    """A checkpoint that a recipe merges.

    Attributes:
        sha256: Hash of its tensors' files, in hex; what it *is*.
        source: A folder or a hub id with revision; where it was. No part of the recipe's hash.
        recipe: What it was built from, where it was built for this recipe; it can be built again.
    """

    sha256: str
    source: str
    recipe: Recipe | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None}


class Selector(Section):
    """A set of tensors by place; what is not said does not restrict.

    Attributes:
        layers: Transformer blocks by index; "outside" are the tensors in no block.
        components: Kinds of tensors.
        names: Parts of tensors' names; one that has any of them is meant.
    """

    layers: tuple[int | Literal["outside"], ...] | None = None
    components: tuple[Component, ...] | None = None
    names: tuple[str, ...] | None = None

    def matches(self, layer: int | None, component: Component, name: str) -> bool:
        """Whether a tensor of this block (None: outside), kind and name is meant."""
        place = "outside" if layer is None else layer
        if self.layers is not None and place not in self.layers:
            return False
        if self.components is not None and component not in self.components:
            return False
        return self.names is None or any(part in name for part in self.names)


class Part(Section):
    """How a set of tensors is merged.

    Attributes:
        select: The tensors: what any of these selectors matches; empty means all.
        method: The method and its options.
        models: Names of the merged members, in order.
        parameters: Values by parameter: one for each model by its name, or one shared number.
        fused_experts: "single": the experts of a mixture, which are one tensor in memory, are
            merged one by one, as the base's files store them; by default all of a layer are one
            tensor, as in mergekit with transformers 5.
    """

    select: tuple[Selector, ...] = ()
    method: Annotated[MethodConfig, METHODS]
    models: tuple[str, ...]
    parameters: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    fused_experts: Literal["single"] | None = None

    @model_serializer(mode="wrap")
    def _without_later_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A field that came later is left out where it says nothing: older hashes stay."""
        found: dict[str, Any] = handler(self)
        if found.get("fused_experts") is None:
            found.pop("fused_experts", None)
        return found

    def matches(self, layer: int | None, component: Component, name: str) -> bool:
        """Whether a tensor of this block (None: outside), kind and name belongs to this part."""
        return not self.select or any(s.matches(layer, component, name) for s in self.select)

    def coefficients(self) -> dict[str, tuple[float, ...]]:
        """The method's parameters by name, for `Method.combine`; defaults filled in."""
        values: dict[str, tuple[float, ...]] = {}
        for parameter in METHODS.make(self.method).parameters:
            given = self.parameters.get(parameter.name, parameter.default)
            if parameter.scope == "shared":
                assert isinstance(given, float)
                values[parameter.name] = (given,)
            elif isinstance(given, dict):
                values[parameter.name] = tuple(given[model] for model in self.models)
            else:
                values[parameter.name] = (given,) * len(self.models)
        return values

    @model_validator(mode="after")
    def _check_against_method(self) -> Self:
        kind = self.method.kind
        method = METHODS.make(self.method)
        known = {parameter.name: parameter for parameter in method.parameters}
        if self.fused_experts is not None and method.needs.whole_model:
            raise ValueError(
                f"fused_experts: {kind} looks at the whole model at once; valid with methods that "
                "merge each tensor by itself"
            )
        if not self.models or len(set(self.models)) < len(self.models):
            raise ValueError(
                f"method {kind} is given {self.models or 'no models'}, expected each once"
            )
        if method.needs.num_models not in (None, len(self.models)):
            raise ValueError(
                f"method {kind} merges exactly {method.needs.num_models} models, "
                f"got {len(self.models)}: {', '.join(self.models)}"
            )
        if len(self.models) < method.needs.least_models:
            raise ValueError(
                f"method {kind} merges {method.needs.least_models} models or more, "
                f"got {len(self.models)}: {', '.join(self.models)}"
            )
        for name, value in self.parameters.items():
            if name not in known:
                raise ValueError(f"method {kind} has no parameter {name!r}; valid: {list(known)}")
            if isinstance(value, dict) and set(value) != set(self.models):
                raise ValueError(
                    f"parameter {name!r} is given for {sorted(value)}, expected {list(self.models)}"
                )
            if isinstance(value, dict) == (known[name].scope == "shared"):
                raise ValueError(
                    f"parameter {name!r} is {known[name].scope}, got "
                    f"{'one value for each model' if isinstance(value, dict) else 'one value'}"
                )
            low, high = known[name].low, known[name].high
            for number in value.values() if isinstance(value, dict) else (value,):
                if not math.isfinite(number):
                    raise ValueError(f"parameter {name!r} is {number}, expected a finite number")
                if (low is not None and number < low) or (high is not None and number > high):
                    raise ValueError(f"parameter {name!r} is {number}, valid: {low} to {high}")
        return self


def first_part(
    parts: Sequence[Part], layer: int | None, component: Component, name: str
) -> int | None:
    """Place of the part that makes a tensor, the first that it belongs to; None where none does.

    Args:
        parts: In order.
        layer: The tensor's block; None: outside.
        component: Its kind.
        name: Its name.
    """
    return next((n for n, p in enumerate(parts) if p.matches(layer, component, name)), None)


MERGED = "merged"
"""What hops call the model that a recipe's own parts make."""


class Hop(Section):
    """One step of a path.

    Attributes:
        model: A member's name, or "merged".
        layer: The transformer block, from 0.
        scale: Factor of the block's input.
    """

    model: str
    layer: int = Field(ge=0)
    scale: float = 1.0


class LayerPath(Section):
    """The path of a token through the layers of several models (arXiv 2403.13187, 3.2).

    Attributes:
        outer: The model that gives the embeddings, the final norm and the head: a member's name,
            or "merged".
        hops: The layers in order.
        stored: "plain": a checkpoint has every hop's layer, as often as it is run, and any program
            that knows the family runs it; by default it has each distinct layer once, and code
            that runs the hops where one is run again.
    """

    outer: str
    hops: tuple[Hop, ...] = Field(min_length=1)
    stored: Literal["plain"] | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it needs, each once."""
        return tuple(dict.fromkeys([self.outer, *(hop.model for hop in self.hops)]))


class Recipe(Section):
    """One candidate: a merged model, or a path through layers of members and a merged model.

    Attributes:
        schema_version: Of this format.
        members: The checkpoints by name; "base" gives architecture, tokenizer and every tensor's
            name and shape.
        mask_seed: Seeds the masks of methods that drop elements at random.
        dtype: Type of the result; arithmetic is float32 whatever it is.
        parts: How tensors are merged; the first part that matches a tensor applies.
        path: The order of layers; by default the base's own order, of the merged model.
        chat_template: The result's, in Jinja; by default the base's.
        vocabulary: The merged model's tokens, where its members' differ; by default the base's.
    """

    schema_version: Literal[1, 2] = 1
    members: dict[str, Member]
    mask_seed: int = 0
    dtype: Dtype = "float32"
    parts: tuple[Part, ...] = ()
    path: LayerPath | None = None
    chat_template: str | None = Field(default=None, min_length=1)
    vocabulary: Vocabulary | None = None

    @field_validator("members")
    @classmethod
    def _has_base(cls, members: dict[str, Member]) -> dict[str, Member]:
        if "base" not in members:
            raise ValueError(f"members must have a 'base', got {list(members)}")
        if MERGED in members:
            raise ValueError(f"no member can be called {MERGED!r}")
        return members

    @field_validator("vocabulary")
    @classmethod
    def _has_hash(cls, vocabulary: Vocabulary | None) -> Vocabulary | None:
        if vocabulary is not None and vocabulary.sha256 is None:
            raise ValueError("expected a sha256, of the tokens that the recipe means")
        return vocabulary

    @model_validator(mode="after")
    def _models_are_members(self) -> Self:
        for part in self.parts:
            for model in part.models:
                if model not in self.members:
                    raise ValueError(f"model {model!r} is no member: {list(self.members)}")
        known = [*self.members, *([MERGED] if self.parts else [])]
        if self.path is None and not self.parts:
            raise ValueError("the recipe has neither parts nor a path")
        for model in self.path.models if self.path is not None else ():
            if model not in known:
                raise ValueError(f"path: no model {model!r}; valid: {', '.join(known)}")
        return self

    def plain(self) -> Recipe:
        """The same model, a path's layers stored as often as they are run."""
        if self.path is None:
            return self
        return self.model_copy(update={"path": self.path.model_copy(update={"stored": "plain"})})

    @property
    def is_member(self) -> bool:
        """Whether it is one of its members, unchanged: the average of that model alone."""
        if self.path is not None or len(self.parts) != 1:
            return False
        (part,) = self.parts
        is_average = isinstance(part.method, LinearConfig) and part.method.normalize
        return is_average and len(part.models) == 1 and not part.select

    @property
    def has_components(self) -> bool:
        """Whether it names kinds of tensors that are in transformer blocks."""
        named = {c for part in self.parts for s in part.select for c in s.components or ()}
        return bool(named - {"embedding", "head"})

    @property
    def merge(self) -> Recipe | None:
        """The merged model alone, without the path; None where nothing is merged."""
        return self.model_copy(update={"path": None}) if self.parts else None

    @property
    def sha256(self) -> str:
        """Hash of what the recipe makes, in hex; where its members lie is left out."""
        content = self.model_dump(mode="json")
        for part, own in zip(content["parts"], self.parts, strict=True):
            part["method"] = own.method.identity()
        content["members"] = {name: member.sha256 for name, member in self.members.items()}
        # Fields that came later are left out where they say nothing: older hashes stay.
        for field in ("path", "chat_template", "vocabulary"):
            if content[field] is None:
                del content[field]
        if self.vocabulary is not None:
            # What its own hash says already.
            for field in ("order", "match", "least_matched"):
                content["vocabulary"].pop(field, None)
        if self.path is not None and self.path.stored is None:
            del content["path"]["stored"]
        for selector in (s for part in content["parts"] for s in part["select"]):
            if selector["names"] is None:
                del selector["names"]
        return sha256_json(content)

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives an equal recipe."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)

    def to_yaml(self) -> str:
        """YAML for people; `read_recipe` gives an equal recipe, floats included."""
        return dump_plain(self.model_dump(mode="json", exclude_none=True))


Member.model_rebuild()


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        InputError: It is missing or not a recipe of a version that this release reads.
    """
    node, data = compose_and_load(read_text(path, "the recipe"), path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping with members and parts")
    if "members" not in data and {"pool", "score"} & data.keys():
        raise InputError(f"{path}: this is a configuration, not a recipe{_RECIPES}")
    version = data.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: recipe has schema_version {version}, this release reads up to "
            f"{SCHEMA_VERSION}: install a newer evomerge"
        )
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(Recipe, path, node, data, (), error)) from None


_RECIPES = "; valid: a file with members and parts, as a run's folder has in recipes/"
