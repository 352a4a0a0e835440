"""A mergekit configuration as a pool and a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from evomerge.errors import CandidateError, InputError
from evomerge.mergekit.chat import AUTO, commonest_template
from evomerge.mergekit.document import Document, Slice, Source
from evomerge.mergekit.models import check_kinds, model_entries
from evomerge.mergekit.names import stored_name
from evomerge.mergekit.parts import Making, parts_of
from evomerge.mergekit.rules import Keyword
from evomerge.mergekit.tokenizer import with_names
from evomerge.mergekit.values import Value, value_of
from evomerge.mergekit.vocabulary import check_rows
from evomerge.methods import METHODS
from evomerge.methods.linear import LinearConfig
from evomerge.pool import Pool, open_models
from evomerge.recipe import MERGED, Hop, LayerPath, Member, Part, Recipe


class LayerMadeTwiceError(InputError):
    """Two slices merge the layers of one number, each in its own way."""


def open_document(document: Document, built: Mapping[str, Path]) -> tuple[Pool, Recipe]:
    """Open a configuration's models, relative to the current folder.

    Args:
        document: The configuration; the layers of a slice's sources have the same numbers.
        built: Folders of models that were built for it, by their names in it.

    Returns:
        The models and the recipe; its members have the names of the pool.

    Raises:
        LayerMadeTwiceError: No recipe can say it of these models, but of stacks of their layers.
        InputError: The file or a model cannot be used.
    """
    path = document.path
    entries = model_entries(document.models, built)
    base, *experts = entries.values()
    vocabulary = with_names(document.vocabulary, entries, document.where)
    pool = open_models(base, tuple(experts), document.dtype, Path(), vocabulary)
    check_kinds(pool, entries, path, built)
    if pool.vocabulary is not None and not document.has_base:
        raise InputError(
            f"{path}: the models' vocabularies differ, and the rows of tokens that one lacks are "
            "those of the `base_model`; name one"
        )
    return pool, recipe_of(document, pool, built)


def recipe_of(document: Document, pool: Pool, built: Mapping[str, Path] | None = None) -> Recipe:
    """The recipe that a configuration means.

    Args:
        document: The configuration.
        pool: Its models, opened by `model_entries`.
        built: See `open_document`.

    Raises:
        InputError: It names layers that a model does not have, or what no recipe can say.
    """
    return _Reader(document, pool, built or {}).recipe()


def check_parameters(document: Document, base: Pool) -> None:
    """Refuse now what would be found in the parameters of slices when all models are open.

    Args:
        document: The configuration.
        base: The base model alone.

    Raises:
        InputError: A value is missing or not valid, or a row of a token is of no merged model.
    """
    with_names(document.vocabulary, model_entries(document.models), document.where)
    reader = _Reader(document, base, {})
    names = [name for name, place in base.layout.places.items() if place.layer in (None, 0)]
    for piece in document.slices:
        reader.check({name: reader.making(piece, name) for name in names})


@dataclass(frozen=True)
class _Layer:
    """A layer of the result.

    Attributes:
        piece: Its slice.
        number: Its number in the sources.
        position: Where it lies in the slice, from 0 to 1.
        place: Its number in the result.
    """

    piece: Slice
    number: int
    position: float
    place: int


class _Reader:
    def __init__(self, document: Document, pool: Pool, built: Mapping[str, Path]) -> None:
        self.document = document
        self.rule = document.rule
        self.pool = pool
        entries = model_entries(document.models, built)
        self.names = {model: entry.name or "" for model, entry in entries.items()}
        self.num_layers = pool.layout.num_layers

    def recipe(self) -> Recipe:
        layers: list[_Layer] = []
        for piece in self.document.slices:
            layers += self._layers(piece, len(layers))
        outside = self._outside()
        self._check_rows(outside)
        makings = dict(outside)
        path = None
        if [layer.number for layer in layers] == list(range(self.num_layers)):
            for layer in layers:
                makings |= self._layer_makings(layer)
        else:
            makings, path = self._stack(layers, outside)
        self.check(makings)
        parts = self._parts(makings)
        return Recipe(
            schema_version=self.pool.schema_version,
            members=self._members(parts, path),
            dtype=self._dtype,
            parts=parts,
            path=path,
            chat_template=self._chat_template(),
            vocabulary=self.pool.vocabulary,
            mask_seed=self.document.mask_seed,
        )

    @property
    def _dtype(self) -> str:
        return self.document.dtype or self.pool.dtype

    def _chat_template(self) -> str | None:
        template = self.document.chat_template
        if template != AUTO:
            return template
        named: list[str | None] = []
        for piece in self.document.slices:
            named += [piece.base, *(source.model for source in piece.sources)]
        # A base that the method ignores may be no model of the pool.
        models = [
            self.pool[self.names[model]] for model in dict.fromkeys(named) if model in self.names
        ]
        return commonest_template(self.pool.base, models)

    def _layers(self, piece: Slice, place: int) -> list[_Layer]:
        spans = {source.layers or (0, self.num_layers) for source in piece.sources}
        for source in piece.sources:
            first, stop = source.layers or (0, self.num_layers)
            if stop > self.num_layers:
                raise InputError(
                    f"{source.where / 'layer_range'}: {source.model!r} has layers 0 to "
                    f"{self.num_layers - 1}, got {[first, stop]}"
                )
        if len(spans) > 1:
            raise InputError(
                f"{piece.where}: sources have the layer ranges "
                f"{', '.join(str(list(span)) for span in sorted(spans))}: a recipe of these models "
                "merges layers of the same number"
            )
        ((first, stop),) = spans
        last = stop - first - 1
        return [
            _Layer(piece, number, (number - first) / last if last else 1.0, place + number - first)
            for number in range(first, stop)
        ]

    def _outside(self) -> dict[str, Making]:
        """Embeddings by the first slice, all else that is in no layer by the last."""
        first, last = self.document.slices[0], self.document.slices[-1]
        return {
            name: self.making(first if place.component == "embedding" else last, name)
            for name, place in self.pool.layout.places.items()
            if place.layer is None
        }

    def _check_rows(self, outside: dict[str, Making]) -> None:
        for name, making in outside.items():
            needs_base = METHODS.make(making.method).needs.base
            models = ("base", *making.models) if needs_base else making.models
            check_rows(self.pool, name, dict.fromkeys(models))

    def _layer_makings(self, layer: _Layer) -> dict[str, Making]:
        return {
            name: self.making(layer.piece, name, layer)
            for name, place in self.pool.layout.places.items()
            if place.layer == layer.number
        }

    def _stack(
        self, layers: list[_Layer], outside: dict[str, Making]
    ) -> tuple[dict[str, Making], LayerPath]:
        """A path; layers that are no member's own are made in the merged model."""
        self.pool.require_layers()
        merged: dict[int, dict[str, Making]] = {}
        hops = []
        for layer in layers:
            makings = self._layer_makings(layer)
            member = _copied(makings)
            if member is None and merged.setdefault(layer.number, makings) != makings:
                raise LayerMadeTwiceError(
                    f"{layer.piece.where}: layer {layer.number} is made differently in an earlier "
                    "slice: a recipe has one merged model, and each of its layers is one"
                )
            hops.append(Hop(model=member or MERGED, layer=layer.number))
        outer = _copied(outside)
        makings = {} if outer else dict(outside)
        for of_layer in merged.values():
            makings |= of_layer
        return makings, LayerPath(outer=outer or MERGED, hops=tuple(hops), stored="plain")

    def making(self, piece: Slice, name: str, layer: _Layer | None = None) -> Making:
        """How a slice makes a tensor; `layer` says which of its own, where it is of one."""
        # mergekit's filters know a tensor by its name in the result; of a model, in the model.
        of_result = stored_name(self.pool, name, layer.place - layer.number if layer else 0)
        position = layer.position if layer else 0.0
        where = piece.where
        sources = list(piece.sources)
        base_is_used = piece.base in [source.model for source in sources]
        if self.rule.base in ("origin", "either"):
            sources = [source for source in sources if source.model != piece.base]
            self._check_origin(piece, base_is_used)
        elif self.rule.base == "first":
            sources.sort(key=lambda source: source.model != piece.base)

        if not sources:
            # Nothing is added to the base.
            return Making(LinearConfig(), ("base",), own=(("weight", (1.0,)),))

        def value(keyword: Keyword, source: Source | None) -> Value:
            levels, filtered = [piece.parameters, self.document.parameters], of_result
            if source is not None:
                levels.insert(0, source.parameters)
                filtered = stored_name(self.pool, name, source.shift if layer else 0)
            for settings in levels:
                found = value_of(settings.get(keyword.name, ()), filtered, position)
                if found is not None:
                    return found
            if keyword.default is None:
                place = where if source is None else source.where
                raise InputError(
                    f"{place / 'parameters'}: {keyword.name!r} is missing for tensor "
                    f"{filtered!r}: method {self.document.method} has no default for it"
                )
            return keyword.default

        keywords = self.rule.keywords.values()
        shared = {k.name: value(k, None) for k in keywords if k.scope == "shared"}
        own = {
            k.ours: tuple(float(value(k, source)) for source in sources)
            for k in keywords
            if k.scope == "model" and k.ours is not None and k.is_used
        }
        of_all = {
            k.ours: float(shared[k.name])
            for k in keywords
            if k.scope == "shared" and k.ours is not None
        }
        try:
            config = self.rule.config(shared, base_is_used)
            own, of_all = self.rule.numbers(own, of_all)
        except (InputError, ValidationError) as error:
            raise InputError(f"{where}: {_first_line(error)}") from None
        for parameter in METHODS.make(config).parameters:
            # What mergekit does not vary, such as karcher's weights.
            if parameter.scope == "shared":
                of_all.setdefault(parameter.name, parameter.default)
            else:
                own.setdefault(parameter.name, (parameter.default,) * len(sources))
        return Making(
            config,
            tuple(self.names[source.model] for source in sources),
            tuple(of_all.items()),
            tuple(own.items()),
        )

    def _check_origin(self, piece: Slice, base_is_used: bool) -> None:
        """The base of task vectors is the pool's."""
        if base_is_used and piece.base != self.document.base:
            raise InputError(
                f"{piece.where / 'base_model'}: {piece.base!r} is not the base model of the file, "
                f"{self.document.base!r}: task vectors of a recipe have one base"
            )

    def check(self, makings: dict[str, Making]) -> None:
        """Refuse now what could be found when it is built only."""
        where = self.document.where
        for name, making in makings.items():
            part = self._part(making)
            try:
                METHODS.make(part.method).check(part.coefficients())
            except CandidateError as error:
                raise InputError(f"{where}: tensor {name!r}: {error}") from None

    def _part(self, making: Making) -> Part:
        try:
            return making.part(())
        except ValidationError as error:
            raise InputError(f"{self.document.path}: {_first_line(error)}") from None

    def _parts(self, makings: dict[str, Making]) -> tuple[Part, ...]:
        return parts_of(makings, self.pool.layout, self._filters())

    def _filters(self) -> list[str]:
        levels = [self.document.parameters]
        for piece in self.document.slices:
            levels += [piece.parameters, *(source.parameters for source in piece.sources)]
        entries = [entry for level in levels for setting in level.values() for entry in setting]
        return list(dict.fromkeys(entry.filter for entry in entries if entry.filter is not None))

    def _members(self, parts: tuple[Part, ...], path: LayerPath | None) -> dict[str, Member]:
        used = {"base", *(model for part in parts for model in part.models)}
        used |= set(path.models) if path is not None else set()
        if self.pool.vocabulary is not None:
            # Every model's tokens are part of what is merged.
            used |= set(self.pool.members)
        return {name: member for name, member in self.pool.members.items() if name in used}


def _copied(makings: dict[str, Making]) -> str | None:
    """The member whose own tensors these are, if they are."""
    models = set()
    for making in makings.values():
        weights = dict(making.own).get("weight")
        normalizes = getattr(making.method, "normalize", False)
        is_copy = (
            making.method.kind == "linear"
            and weights is not None
            and len(weights) == 1
            and (weights[0] == 1.0 or (normalizes and weights[0] != 0.0))
        )
        models.add(making.models[0] if is_copy else None)
    return models.pop() if len(models) == 1 else None


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return str(error).splitlines()[0]
