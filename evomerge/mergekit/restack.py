"""Slices whose layers meet others of another number, as models stacked before they are merged.

A recipe merges layers of the same number. Where a slice merges layer 2 of one model with layer 5 of
another, or two slices merge the same layer, each in its own way, each model is stacked by a
document of its own: its layers in the order in which the result has them. What is merged are these
stacks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from evomerge.errors import InputError
from evomerge.mergekit.document import Document, Slice, Source
from evomerge.mergekit.models import whole_of
from evomerge.mergekit.rules import RULES

PASSTHROUGH = "passthrough"


Kinds = Mapping[str, Sequence[str]]
"""Of which kind each layer is, by model without its adapter."""


def needs_stacks(document: Document, kinds: Kinds) -> bool:
    """Whether layers of different numbers meet, or models of different depths.

    Args:
        document: The configuration; its slices say which layers.
        kinds: Of all its models.
    """
    spans = [{source.layers for source in piece.sources} for piece in document.slices]
    return any(len(each) > 1 for each in spans) or len(set(map(len, kinds.values()))) > 1


def restacked(
    document: Document, kinds: Kinds, taken: Collection[str] = ()
) -> tuple[dict[str, Document], Document]:
    """A configuration of slices as one that merges layers of the same number.

    Args:
        document: See `needs_stacks`; the tokenizer that it names is left as it is.
        kinds: See `needs_stacks`.
        taken: Names that stacks cannot have, beside those of the models.

    Returns:
        Configurations of the stacks by their names, and that of the result.

    Raises:
        InputError: A slice names layers that a model does not have, or its sources do not have the
            same number of layers.
    """
    places: list[dict[str, int]] = []
    slices = []
    for piece in document.slices:
        first = len(places)
        places += _layers(piece, kinds)
        slices.append((piece, (first, len(places))))
    documents: dict[str, Document] = {}
    names: dict[str, str] = {}
    for model in document.models:
        order = [_layer_of(model, at, place, kinds) for at, place in enumerate(places)]
        if order != list(range(len(kinds[whole_of(model)]))):
            name = f"{model.replace('+', ' with ')} stacked"
            while name in (*taken, *document.models, *documents):
                name += " anew"
            names[model], documents[name] = name, _stack(document, model, order)

    def named(model: str) -> str:
        return names.get(model, model)

    def merged_source(source: Source, span: tuple[int, int]) -> Source:
        assert source.layers is not None
        shift = source.layers[0] - span[0]
        return replace(source, model=named(source.model), layers=span, shift=shift)

    def merged(piece: Slice, span: tuple[int, int]) -> Slice:
        sources = [merged_source(source, span) for source in piece.sources]
        base = None if piece.base is None else named(piece.base)
        return replace(piece, sources=tuple(sources), base=base)

    vocabulary = document.vocabulary
    if vocabulary is not None and vocabulary.rows is not None:
        rows = {
            token: row.model_copy(update={"model": named(row.model)}) if row.model else row
            for token, row in vocabulary.rows.items()
        }
        vocabulary = vocabulary.model_copy(update={"rows": rows})
    return documents, replace(
        document,
        base=named(document.base),
        slices=tuple(merged(piece, span) for piece, span in slices),
        vocabulary=vocabulary,
    )


def _layer_of(model: str, at: int, place: Mapping[str, int], kinds: Kinds) -> int:
    """The layer that a model's stack has at a place; where it is no source, one of that kind."""
    if model in place:
        return place[model]
    own = kinds[whole_of(model)]
    wanted = {kinds[whole_of(source)][layer] for source, layer in place.items()}
    alike = [layer for layer, kind in enumerate(own) if kind in wanted]
    return min(alike or range(len(own)), key=lambda layer: abs(layer - at))


def _layers(piece: Slice, kinds: Kinds) -> list[dict[str, int]]:
    """The layer of each source, by model, for each layer of the result."""
    spans = {}
    for source in piece.sources:
        depth = len(kinds[whole_of(source.model)])
        assert source.layers is not None
        first, stop = source.layers
        if stop > depth:
            raise InputError(
                f"{source.where / 'layer_range'}: {source.model!r} has layers 0 to {depth - 1}, "
                f"got {[first, stop]}"
            )
        spans[source.model] = range(first, stop)
    lengths = {model: len(span) for model, span in spans.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"{piece.where}: sources have "
            f"{', '.join(f'{number} layers of {model!r}' for model, number in lengths.items())}; "
            "expected the same number of each"
        )
    return [dict(zip(spans, layers, strict=True)) for layers in zip(*spans.values(), strict=True)]


def _stack(document: Document, model: str, order: list[int]) -> Document:
    """A model's layers in an order, with nothing else changed."""
    where = document.where
    slices = [
        Slice(where, (Source(where, model, {}, (layer, layer + 1)),), None, {}) for layer in order
    ]
    return Document(
        where,
        None,
        PASSTHROUGH,
        RULES[PASSTHROUGH],
        whole_of(model),
        tuple(slices),
        {},
        dtype=None,
        chat_template=None,
        vocabulary=None,
        tokenizer_of=None,
        has_base=False,
        mask_seed=0,
    )
