"""A recipe as a mergekit configuration; what mergekit cannot express is refused by name."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import yaml

from evomerge.errors import InputError
from evomerge.mergekit.chat import is_jinja
from evomerge.mergekit.names import stored_name
from evomerge.mergekit.parts import Making
from evomerge.mergekit.rules import RULES, Rule
from evomerge.mergekit.settings import options_of, setting_of
from evomerge.mergekit.values import Value
from evomerge.mergekit.vectors import in_its_options
from evomerge.mergekit.vocabulary import check_rows, tokenizer_source
from evomerge.methods import METHODS, MethodConfig
from evomerge.methods.linear import LinearConfig
from evomerge.pool import Adapter, Pool
from evomerge.pool.vocabulary.chat import read_chat_template
from evomerge.recipe import MERGED, Hop, Part, Recipe

RANDOM_NOTE = """\
# mergekit draws this method's masks anew each time: it makes another model of the same kind.
"""


def mergekit_yaml(pool: Pool, recipe: Recipe) -> str:
    """The recipe in mergekit's words; read again it builds equal weights.

    Args:
        pool: The recipe's models.
        recipe: What to write.

    Raises:
        InputError: mergekit has no words for it.
    """
    for name, member in recipe.members.items():
        if member.recipe is not None:
            raise InputError(
                f"member {name!r} was built from a recipe of its own, which mergekit has no words "
                "for in one configuration"
            )
    if any(part.fused_experts is not None for part in recipe.parts):
        raise InputError(
            "mergekit takes all experts of a layer as one tensor, the recipe each by itself "
            "(`fused_experts: single`)"
        )
    return _Writer(pool, recipe).text()


@dataclass
class _Slice:
    """Layers of the result that come one after another in the same models.

    Attributes:
        place: Number of the first in the result.
        first: Number of the first in its models.
        stop: The one behind the last.
        makings: By tensor name; tensors of no layer are among those of the first or last slice.
    """

    place: int
    first: int
    stop: int
    makings: dict[str, Making]

    @property
    def models(self) -> tuple[str, ...]:
        used = (model for making in self.makings.values() for model in making.models)
        return tuple(dict.fromkeys(used))


class _Writer:
    def __init__(self, pool: Pool, recipe: Recipe) -> None:
        self.pool = pool
        self.recipe = recipe
        path = recipe.path
        # Parts that no hop of a path uses make nothing.
        self.parts = recipe.parts if path is None or MERGED in path.models else ()
        self.places = pool.layout.places
        self.config = self._one_method()
        self.rule: Rule = RULES[self.config.kind]
        self.is_weighted = "weight" in self.rule.keywords and self.rule.most is None
        self.is_around_base = self.rule.base == "origin" or getattr(self.config, "base", False)
        self.slices = self._slices()
        self._use_its_options()

    def text(self) -> str:
        rule, base = self.rule, self._source("base")
        copies = all(self._is_copy(m) for piece in self.slices for m in piece.makings.values())
        is_passthrough = copies and all(len(piece.models) == 1 for piece in self.slices)
        method = "passthrough" if is_passthrough else self.config.kind
        options = {} if is_passthrough else options_of(rule, self.config)
        slices = [self._written(piece, is_passthrough) for piece in self.slices]
        data: dict[str, Any] = {"merge_method": method, "base_model": base}
        if rule.base == "either" and not self.is_around_base:
            # Named it would be the origin. Without, configuration and tokenizer are the first
            # model's, which a pool has checked to be like the base's.
            del data["base_model"]
            slices[0]["sources"].sort(key=lambda source: source["model"] != base)
        # A list of models has an unlisted base among its inputs.
        plain = self.recipe.path is None and len(slices) == 1 and rule.base != "first"
        if plain and (
            rule.base == "either" or self.is_around_base or "base" in self.slices[0].models
        ):
            data["models"] = [
                {key: value for key, value in source.items() if key != "layer_range"}
                for source in slices[0]["sources"]
            ]
            options |= slices[0].get("parameters", {})
        else:
            data["slices"] = slices
        if options:
            data["parameters"] = options
        if self.pool.vocabulary is not None:
            names = {name: self._source(name) for name in self.recipe.members}
            data |= tokenizer_source(self.pool, data, names)
        # Float32 arithmetic and one cast at the end.
        data |= {"dtype": "float32", "out_dtype": self.recipe.dtype}
        template = self._chat_template(has_base="base_model" in data)
        if template is not None:
            if not is_jinja(template):
                raise InputError(f"mergekit takes the chat template {template!r} for a name")
            data["chat_template"] = template
        note = RANDOM_NOTE if self._is_random() else ""
        return note + str(yaml.safe_dump(data, sort_keys=False))

    def _chat_template(self, *, has_base: bool) -> str | None:
        """What the file must say, or None; without a base model it has the first model's."""
        template = self.recipe.chat_template
        if template is None and not has_base:
            own = {c.name: read_chat_template(c.name, c.model_dir) for c in self.pool}
            if len(set(own.values())) > 1:
                template = own["base"]
                if template is None:
                    raise InputError(
                        f"mergekit's {self.config.kind} without an origin has the first model's "
                        "chat template, and the base has none"
                    )
        return template

    def _one_method(self) -> MethodConfig:
        """The method of all parts; copies of one model are whatever linear merge the others are."""
        configs = {p.method.model_dump_json(): p.method for p in self.parts}
        others = {
            text: p.method
            for p in self.parts
            if not self._is_copy(_making(p)) and (text := p.method.model_dump_json())
        }
        kinds = others or dict(itertools.islice(configs.items(), 1))
        if len(kinds) > 1:
            names = sorted({config.kind for config in kinds.values()})
            what = f"methods {', '.join(names)}" if len(names) > 1 else f"options of {names[0]}"
            raise InputError(f"mergekit has one method for all tensors, the recipe several {what}")
        config = next(iter(kinds.values()), LinearConfig())
        path = self.recipe.path
        has_copies = len(configs) > len(kinds) or (
            path is not None and set(path.models) != {MERGED}
        )
        if config.kind not in RULES:
            raise InputError(f"mergekit has no method {config.kind!r}")
        if config.kind != "linear" and has_copies:
            raise InputError(
                f"mergekit has one method for all tensors, the recipe merges some by {config.kind} "
                "and copies others from one model"
            )
        return config

    def _slices(self) -> list[_Slice]:
        path = self.recipe.path
        layers = range(self.pool.layout.num_layers)
        hops = path.hops if path else tuple(Hop(model=MERGED, layer=n) for n in layers)
        slices: list[_Slice] = []
        for number, hop in enumerate(hops):
            if hop.scale != 1.0:
                raise InputError(
                    f"mergekit cannot scale the input of layer {hop.layer} (by {hop.scale})"
                )
            makings = {
                name: self._made(hop.model, name)
                for name, place in self.places.items()
                if place.layer == hop.layer
            }
            added = _Slice(number, hop.layer, hop.layer + 1, makings)
            if slices and slices[-1].stop == hop.layer and self._joins(slices[-1], added, hop):
                slices[-1].stop += 1
                slices[-1].makings |= makings
            else:
                slices.append(added)
        outer = path.outer if path else MERGED
        for name, place in self.places.items():
            if place.layer is None:
                if not slices:
                    raise InputError("mergekit merges layers, and of this model none are known")
                piece = slices[0 if place.component == "embedding" else -1]
                piece.makings[name] = self._made(outer, name)
        return slices

    def _use_its_options(self) -> None:
        """All tensors or none: mergekit has one set of options."""
        shapes = self.pool.layout.shapes
        found = [
            {name: in_its_options(m, shapes[name]) for name, m in piece.makings.items()}
            for piece in self.slices
        ]
        makings = [{name: m for name, m in of.items() if m is not None} for of in found]
        if makings != found:
            return
        for piece, of_piece in zip(self.slices, makings, strict=True):
            piece.makings = of_piece
        self.config = next(m for of_piece in makings for m in of_piece.values()).method

    def _joins(self, piece: _Slice, added: _Slice, hop: Hop) -> bool:
        if hop.model == MERGED and self.is_weighted and self.recipe.path is None:
            return True
        return piece.models == added.models

    def _made(self, model: str, name: str) -> Making:
        if model != MERGED:
            return Making(self.config, (model,), own=(("weight", (1.0,)),))
        place = self.places[name]
        part = next((p for p in self.parts if p.matches(place.layer, place.component, name)), None)
        if part is None:
            raise InputError(f"no part of the recipe selects tensor {name!r}")
        making = _making(part)
        if self._is_copy(making):
            making = Making(self.config, making.models, own=(("weight", (1.0,)),))
        return making

    def _is_copy(self, making: Making) -> bool:
        weights = dict(making.own).get("weight", ())
        normalizes = getattr(making.method, "normalize", False)
        is_single = making.method.kind == "linear" and len(weights) == 1
        return is_single and (weights[0] == 1.0 or (normalizes and weights[0] != 0.0))

    def _written(self, piece: _Slice, is_passthrough: bool) -> dict[str, Any]:
        models = piece.models
        for name in piece.makings:
            check_rows(self.pool, name, ["base", *models] if self.is_around_base else models)
        makings = {name: self._filled(name, m, models) for name, m in piece.makings.items()}
        sources = []
        for index, model in enumerate(models):
            source: dict[str, Any] = {
                "model": self._source(model),
                "layer_range": [piece.first, piece.stop],
            }
            if not is_passthrough:
                parameters = {
                    keyword: self._setting(
                        {name: dict(m.own)[ours][index] for name, m in makings.items()}
                    )
                    for keyword, ours in self._keywords("model")
                }
                source |= {"parameters": parameters} if parameters else {}
            sources.append(source)
        if self.is_around_base:
            span = [piece.first, piece.stop]  # a list of its own: YAML has names for shared ones
            sources.insert(0, {"model": self._source("base"), "layer_range": span})
        written: dict[str, Any] = {"sources": sources}
        if self.rule.base == "first":
            written["base_model"] = self._source(models[0])
        shared = {
            keyword: self._setting(
                {name: dict(m.shared)[ours] for name, m in makings.items()},
                piece.place - piece.first,
            )
            for keyword, ours in self._keywords("shared")
        }
        return written | ({"parameters": shared} if shared and not is_passthrough else {})

    def _filled(self, name: str, making: Making, models: tuple[str, ...]) -> Making:
        """The making with all of a slice's models; those it had not have weight 0."""
        if making.models != models and not (self.is_weighted and set(models) >= set(making.models)):
            raise InputError(
                f"mergekit merges the same models in the same order in all tensors of a slice; "
                f"{self.config.kind} merges {', '.join(models)}, and tensor {name!r} of "
                f"{', '.join(making.models)}"
            )
        if self.is_around_base and "base" in models:
            raise InputError(
                f"mergekit's {self.config.kind} cannot merge the base into itself ({name!r})"
            )
        own = dict(making.own)
        written = {ours for _, ours in self._keywords("model")}
        known = {parameter.name: parameter for parameter in METHODS.make(self.config).parameters}
        for parameter, values in {**own, **dict(making.shared)}.items():
            numbers = values if isinstance(values, tuple) else (values,)
            is_written = parameter in written | {ours for _, ours in self._keywords("shared")}
            # Equal weights of a mean that has none in mergekit are as good as ones.
            is_even = parameter == "weight" and len(set(numbers)) == 1
            if not is_written and not is_even and set(numbers) != {known[parameter].default}:
                raise InputError(f"mergekit's {self.config.kind} has no {parameter!r}: {numbers}")
        shared = dict(making.shared)
        if self.rule.numbers(own, shared) != (own, shared):
            raise InputError(
                f"mergekit's {self.config.kind} means something else by "
                f"{', '.join(f'{key} {value}' for key, value in own.items())}"
            )
        filled = tuple(
            (
                parameter,
                tuple(
                    dict(zip(making.models, values, strict=True)).get(
                        model, 0.0 if parameter == "weight" else known[parameter].default
                    )
                    for model in models
                ),
            )
            for parameter, values in making.own
        )
        return replace(making, models=models, own=filled)

    def _keywords(self, scope: str) -> list[tuple[str, str]]:
        return [
            (keyword.name, keyword.ours)
            for keyword in self.rule.keywords.values()
            if keyword.scope == scope and keyword.ours is not None and keyword.is_used
        ]

    def _setting(self, values: dict[str, Value], shift: int = 0) -> Any:
        """A parameter as mergekit's filters say it; `shift` is added to the layers' numbers."""
        stored = {name: stored_name(self.pool, name, shift) for name in values}
        numbers = {name: self.places[name].layer for name in values}
        layers = {stored[n]: None if at is None else at + shift for n, at in numbers.items()}
        return setting_of({stored[name]: value for name, value in values.items()}, layers)

    def _source(self, model: str) -> str:
        checkpoint = self.pool[model]
        steps = [checkpoint.source]
        if isinstance(checkpoint, Adapter):
            steps.insert(0, checkpoint.base.source)
        for step in steps:
            if step.startswith("/") and ("+" in step or "@" in step):
                raise InputError(f"mergekit reads '+' and '@' in a folder's name otherwise: {step}")
        return "+".join(steps)

    def _is_random(self) -> bool:
        """Whether masks are drawn.

        Raises:
            InputError: They are drawn from a seed.
        """
        is_random = self.config.kind in (
            "dare_linear",
            "dare_ties",
            "della",
            "della_linear",
        ) and any(
            density != 1.0
            for part in self.parts
            for density in part.coefficients().get("density", ())
        )
        if is_random and self.recipe.mask_seed != 0:
            raise InputError(
                f"mergekit has no mask seed, the recipe's is {self.recipe.mask_seed} (0 is written "
                "as the default)"
            )
        return is_random


def _making(part: Part) -> Making:
    """What a part does, with all its numbers."""
    values = part.coefficients()
    scopes = {p.name: p.scope for p in METHODS.make(part.method).parameters}
    return Making(
        part.method,
        part.models,
        tuple((name, values[name][0]) for name in values if scopes[name] == "shared"),
        tuple((name, values[name]) for name in values if scopes[name] == "model"),
    )
