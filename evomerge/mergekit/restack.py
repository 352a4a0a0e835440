"""Slices whose layers meet others of another number, as models stacked before they are merged.

A recipe merges layers of the same number. Where a slice merges layer 2 of one model with layer 5 of
another, or two slices merge the same layer, each in its own way, each model is stacked by a
document of its own: its layers in the order in which the result has them. What is merged are these
stacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evomerge.errors import InputError
from evomerge.mergekit.document import Document, Slice, Source
from evomerge.mergekit.models import whole_of
from evomerge.mergekit.rules import RULES

PASSTHROUGH = "passthrough"


def needs_stacks(document: Document, depths: Mapping[str, int]) -> bool:
    """Whether layers of different numbers meet, or models of different depths.

    Args:
        document: The configuration; its slices say which layers.
        depths: Numbers of layers, by model without its adapter.
    """
    spans = [{source.layers for source in piece.sources} for piece in document.slices]
    return any(len(each) > 1 for each in spans) or len(set(depths.values())) > 1


def restacked(
    document: Document, depths: Mapping[str, int]
) -> tuple[dict[str, Document], Document]:
    """A configuration of slices as one that merges layers of the same number.

    Args:
        document: See `needs_stacks`.
        depths: See `needs_stacks`.

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
        places += _layers(piece, depths)
        slices.append((piece, (first, len(places))))
    documents, names = {}, {}
    for model in document.models:
        depth = depths[whole_of(model)]
        order = [place.get(model, min(at, depth - 1)) for at, place in enumerate(places)]
        if order != list(range(depth)):
            # No model is called so: others are a folder or a hub id.
            names[model] = f"{model.replace('+', ' with ')} stacked"
            documents[names[model]] = _stack(document, model, order)

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

    vocabulary, tokenizer_of = document.vocabulary, document.tokenizer_of
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
        tokenizer_of=None if tokenizer_of is None else named(tokenizer_of),
    )


def _layers(piece: Slice, depths: Mapping[str, int]) -> list[dict[str, int]]:
    """The layer of each source, by model, for each layer of the result."""
    spans = {}
    for source in piece.sources:
        depth = depths[whole_of(source.model)]
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
