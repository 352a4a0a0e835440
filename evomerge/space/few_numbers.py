"""Spaces of layer orders with a handful of whole numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Hop, LayerPath
from evomerge.space.path_config import RemoveLayersConfig, RepeatSpanConfig, SlicesConfig
from evomerge.space.paths import own_path, path_models
from evomerge.space.protocol import Dimension, Genome


def whole(dimensions: Sequence[Dimension], genome: Sequence[float]) -> list[int]:
    """A genome's numbers, each rounded into its bounds."""
    return [
        round(min(max(number, d.low), d.high)) for d, number in zip(dimensions, genome, strict=True)
    ]


class Slices:
    """The `Encoding` of contiguous slices: cut points, then owners (by number in `models`)."""

    def __init__(self, config: SlicesConfig, pool: Pool, has_merged: bool) -> None:
        self.models = path_models(config, pool, has_merged)
        self.num_layers = total = pool.layout.num_layers
        if config.slices > total:
            raise InputError(f"space.slices: {config.slices} slices of {total} layers")
        if len(self.models) < 2:
            known = [*([MERGED] if has_merged else []), *(checkpoint.name for checkpoint in pool)]
            raise InputError(
                f"space.models: slices of {self.models[0]!r} alone are all the same; name another "
                f"model, valid: {', '.join(known)}"
            )
        self.start = own_path(self.models[0], total)
        cuts = [
            Dimension(f"cut/{n}", 0.0, total, round(n * total / config.slices), integer=True)
            for n in range(1, config.slices)
        ]
        owners = [
            Dimension(f"owner/{n}", 0.0, len(self.models) - 1, 0.0, integer=True)
            for n in range(config.slices)
        ]
        self.num_cuts = len(cuts)
        self.dimensions = (*cuts, *owners)

    def to_path(self, genome: Sequence[float]) -> LayerPath:
        """See `Encoding`."""
        numbers = whole(self.dimensions, genome)
        cuts = [0, *sorted(numbers[: self.num_cuts]), self.num_layers]
        hops = [
            Hop(model=self.models[owner], layer=layer)
            for (begin, end), owner in zip(
                itertools.pairwise(cuts), numbers[self.num_cuts :], strict=True
            )
            for layer in range(begin, end)
        ]
        return LayerPath(outer=self.models[0], hops=tuple(hops))

    def to_genome(self, path: LayerPath) -> Genome | None:
        """See `Encoding`."""
        if [hop.layer for hop in path.hops] != list(range(self.num_layers)):
            return None
        owners: list[str] = []
        cuts = []
        for layer, hop in enumerate(path.hops):
            if not owners or hop.model != owners[-1]:
                owners.append(hop.model)
                cuts.append(layer)
        missing = self.num_cuts + 1 - len(owners)
        if missing < 0 or any(owner not in self.models for owner in owners):
            return None
        numbers = [*cuts[1:], *[self.num_layers] * missing]
        owned = [self.models.index(owner) for owner in owners] + [0] * missing
        return tuple(float(number) for number in (*numbers, *owned))

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`: cuts in order, one slice for neighbors of one owner, the rest empty."""
        found = self.to_genome(self.to_path(genome))
        assert found is not None
        return found


class RemoveLayers:
    """The `Encoding` of model A without some layers: the numbers of those that are left out."""

    def __init__(self, config: RemoveLayersConfig, pool: Pool, has_merged: bool) -> None:
        self.model = path_models(config, pool, has_merged)[0]
        self.num_layers = total = pool.layout.num_layers
        if config.remove >= total:
            raise InputError(f"space.remove: {config.remove} of {total} layers leave no path")
        # One more stands for no layer.
        last = total if config.up_to else total - 1
        self.dimensions = tuple(
            # The last layers but the very last are the ones that models miss least.
            Dimension(f"remove/{n}", 0.0, last, max(0, total - 1 - config.remove) + n, integer=True)
            for n in range(config.remove)
        )
        self.start = own_path(self.model, total)

    def _removed(self, genome: Sequence[float]) -> list[int]:
        removed: set[int] = set()
        for number in whole(self.dimensions, genome):
            if number == self.num_layers:
                continue
            # A layer that is out already: the next one that is in.
            while number in removed:
                number = (number + 1) % self.num_layers
            removed.add(number)
        return sorted(removed)

    def to_path(self, genome: Sequence[float]) -> LayerPath:
        """See `Encoding`."""
        removed = self._removed(genome)
        hops = tuple(
            Hop(model=self.model, layer=n) for n in range(self.num_layers) if n not in removed
        )
        return LayerPath(outer=self.model, hops=hops)

    def to_genome(self, path: LayerPath) -> Genome | None:
        """See `Encoding`."""
        kept = {hop.layer for hop in path.hops}
        return self._genome([n for n in range(self.num_layers) if n not in kept])

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""
        found = self._genome(self._removed(genome))
        assert found is not None
        return found

    def _genome(self, removed: Sequence[int]) -> Genome | None:
        """The numbers of some layers, the others at no layer."""
        lacking = len(self.dimensions) - len(removed)
        can_lack = self.dimensions[0].high == self.num_layers
        if lacking < 0 or (lacking and not can_lack):
            return None
        return tuple(float(n) for n in [*removed, *[self.num_layers] * lacking])


class RepeatSpan:
    """The `Encoding` of a repeated span: its first layer, its length, its extra runs."""

    def __init__(self, config: RepeatSpanConfig, pool: Pool, has_merged: bool) -> None:
        self.model = path_models(config, pool, has_merged)[0]
        self.num_layers = total = pool.layout.num_layers
        if total < 2:
            raise InputError("space: models of one layer have one span only")
        self.dimensions = (
            Dimension("first", 0.0, total - 1, total // 2, integer=True),
            Dimension("length", 1.0, total, 1.0, integer=True),
            Dimension("repeats", 0.0, config.max_repeats, 0.0, integer=True),
        )
        self.start = own_path(self.model, total)

    def to_path(self, genome: Sequence[float]) -> LayerPath:
        """See `Encoding`."""
        first, length, repeats = self._numbers(genome)
        order = [*range(first + length), *[*range(first, first + length)] * repeats]
        order += range(first + length, self.num_layers)
        return LayerPath(
            outer=self.model, hops=tuple(Hop(model=self.model, layer=n) for n in order)
        )

    def to_genome(self, path: LayerPath) -> Genome | None:
        """See `Encoding`."""
        wanted = [hop.layer for hop in path.hops]
        box = (range(int(d.low), int(d.high) + 1) for d in self.dimensions)
        for numbers in itertools.product(*box):
            genome = tuple(float(n) for n in numbers)
            if [hop.layer for hop in self.to_path(genome).hops] == wanted:
                return self.canonical(genome)
        return None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""
        first, length, repeats = self._numbers(genome)
        if repeats == 0:
            return tuple(float(dimension.start) for dimension in self.dimensions)
        return float(first), float(length), float(repeats)

    def _numbers(self, genome: Sequence[float]) -> tuple[int, int, int]:
        first, length, repeats = whole(self.dimensions, genome)
        return first, min(length, self.num_layers - first), repeats
