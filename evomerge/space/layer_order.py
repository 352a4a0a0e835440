"""Layer order: the layers of all models in sequence, repeated, each in the path or not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.recipe import Hop, LayerPath
from evomerge.space.path_config import LayerOrderConfig
from evomerge.space.paths import own_path, path_models
from evomerge.space.protocol import Dimension, Genome

FAR = 2 / 3
"""How far from zero the published encoding starts, of 1: two of CMA-ES's standard deviations of a
sixth of the range."""

Layer = tuple[str, int]


class LayerOrder:
    """The `Encoding` of any path (arXiv 2403.13187, 3.2).

    A genome has a number for each place of the sequence, which says whether it is in the path,
    and then the scales' numbers.

    Args:
        config: What varies.
        pool: The models.
        has_merged: Whether there is a model called "merged".

    Raises:
        InputError: A model is not there, or the limits leave no path.
    """

    def __init__(self, config: LayerOrderConfig, pool: Pool, has_merged: bool) -> None:
        self.config = config
        self.models = path_models(config, pool, has_merged)
        self.num_layers = pool.layout.num_layers
        layers = [(model, n) for model in self.models for n in range(self.num_layers)]
        self.layers: list[Layer] = layers
        self.places: list[Layer] = layers * config.repetitions
        first, last = layers[0], layers[self.num_layers - 1]
        self.before: list[Layer] = []
        self.after: list[Layer] = []
        if config.ends == "fixed":
            # The two ends stand by themselves, and once less in the sequence.
            self.before = [first]
            self.places.pop(0)
            if last != first:
                self.after = [last]
                self.places.pop(len(self.places) - 1 - self.places[::-1].index(last))
        start = [layer[0] == self.models[0] for layer in self.places]
        inner = self.num_layers - len(self.before) - len(self.after)
        # A's layers once, in order: the first repetition's.
        self._start = [s and sum(start[:k]) < inner for k, s in enumerate(start)]
        self.start = own_path(self.models[0], self.num_layers)
        self._check_limits()
        self._names = [
            f"{model}.{layer}" + (f"#{round_ + 1}" if config.repetitions > 1 else "")
            for (model, layer), round_ in zip(self.places, self._rounds(), strict=True)
        ]
        binary = config.encoding == "binary"
        in_path = [
            Dimension(f"use/{name}", 0.0, 1.0, float(is_in), integer=True)
            if binary
            else Dimension(f"use/{name}", -1.0, 1.0, FAR if is_in else -FAR)
            for name, is_in in zip(self._names, self._start, strict=True)
        ]
        self.dimensions = (*in_path, *self._scale_dimensions())
        if not self.dimensions:
            raise InputError(
                f"space: nothing varies: model {self.models[0]!r} alone has fixed ends and no "
                "layer between them; name more under space.models, or `ends: free`"
            )

    def to_path(self, genome: Sequence[float]) -> LayerPath:
        """See `Encoding`."""
        places = self._chosen(genome)
        hops = [*self.before, *(self.places[place] for place in places), *self.after]
        scales = self._scales(genome, places, hops)
        return LayerPath(
            outer=self.models[0],
            hops=tuple(
                Hop(model=model, layer=layer, scale=scale)
                for (model, layer), scale in zip(hops, scales, strict=True)
            ),
        )

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""
        if self.config.encoding == "continuous":
            return tuple(float(number) for number in genome)
        places = self._chosen(genome)
        count = len(self.places)
        bits = [float(place in set(places)) for place in range(count)]
        used = self._used_scales(places)
        scales = [
            float(number) if used is None or index in used else dimension.start
            for index, (number, dimension) in enumerate(
                zip(genome[count:], self.dimensions[count:], strict=True)
            )
        ]
        return (*bits, *scales)

    def to_genome(self, path: LayerPath) -> Genome | None:
        """See `Encoding`."""
        hops = [(hop.model, hop.layer) for hop in path.hops]
        inner = range(len(self.before), len(hops) - len(self.after))
        if [*hops[: inner.start], *hops[inner.stop :]] != [*self.before, *self.after]:
            return None
        places: list[int] = []
        for number in inner:
            # The earliest place behind the one before: no other choice fits more hops.
            begin = places[-1] + 1 if places else 0
            found = next(
                (k for k in range(begin, len(self.places)) if self.places[k] == hops[number]), None
            )
            if found is None:
                return None
            places.append(found)
        genome = [d.start for d in self.dimensions]
        for place, dimension in enumerate(self.dimensions[: len(self.places)]):
            outside = 0.0 if dimension.integer else -FAR
            inside = 1.0 if dimension.integer else FAR
            genome[place] = inside if place in places else outside
        for index, hop in self._scale_of_hops(places):
            genome[len(self.places) + index] = path.hops[hop].scale
        return tuple(genome)

    def _rounds(self) -> list[int]:
        """Which repetition each place belongs to."""
        rounds: list[int] = []
        for index, layer in enumerate(self.places):
            before = self.places[:index].count(layer) + (layer in self.before)
            rounds.append(before)
        return rounds

    def _check_limits(self) -> None:
        config = self.config
        for name, limit in (("max_hops", config.max_hops), ("max_distinct", config.max_distinct)):
            if limit is not None and limit < self.num_layers:
                raise InputError(
                    f"space.{name}: {limit} is less than the {self.num_layers} layers of model "
                    f"{self.models[0]!r}, which is the first candidate"
                )

    def _chosen(self, genome: Sequence[float]) -> list[int]:
        """Places in the path, ascending; never none, never more than the limits allow."""
        values = genome[: len(self.places)]
        binary = self.config.encoding == "binary"
        threshold = 0.5 if binary else 0.0
        chosen = [place for place, value in enumerate(values) if value > threshold]
        if not chosen and not self.before:
            # A path has a hop: the likeliest one, or A's first.
            return [0 if binary else max(range(len(values)), key=lambda place: values[place])]
        if not binary:
            chosen.sort(key=lambda place: -values[place])
        ends = [*self.before, *self.after]
        hops = (self.config.max_hops or len(self.places) + len(ends)) - len(ends)
        most = self.config.max_distinct or len(self.layers)
        kept: list[int] = []
        distinct = set(ends)
        for place in chosen:
            layer = self.places[place]
            if len(kept) < hops and (layer in distinct or len(distinct) < most):
                kept.append(place)
                distinct.add(layer)
        return sorted(kept)

    def _scale_dimensions(self) -> list[Dimension]:
        span = self.config.scale
        scaling = self.config.scaling
        if scaling == "hop":
            ends = [f"{m}.{n}" for m, n in self.before], [f"{m}.{n}" for m, n in self.after]
            names = [
                *self._names,
                *(f"first/{n}" for n in ends[0]),
                *(f"last/{n}" for n in ends[1]),
            ]
        elif scaling == "matrix":
            names = [
                f"{a}.{i}>{b}.{j}" for (a, i), (b, j) in itertools.product(self.layers, repeat=2)
            ]
        elif scaling == "network":
            count = 5 * self.config.hidden + 1
            return [Dimension(f"network/{n}", -1.0, 1.0, 0.0) for n in range(count)]
        else:
            names = []
        return [Dimension(f"scale/{name}", span.low, span.high, span.middle) for name in names]

    def _scale_of_hops(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Scale number and hop number of the hops that have a scale of their own."""
        first = len(self.before)
        hops = [*self.before, *(self.places[place] for place in places), *self.after]
        if self.config.scaling == "hop":
            pairs = [(place, first + number) for number, place in enumerate(places)]
            pairs += [(len(self.places) + n, n) for n in range(first)]
            last = len(self.places) + first
            return pairs + [(last + n, first + len(places) + n) for n in range(len(self.after))]
        if self.config.scaling == "matrix":
            index = {layer: number for number, layer in enumerate(self.layers)}
            return [
                (index[before] * len(self.layers) + index[after], number + 1)
                for number, (before, after) in enumerate(itertools.pairwise(hops))
            ]
        return []

    def _used_scales(self, places: Sequence[int]) -> set[int] | None:
        """Scale numbers that the path uses; None: all."""
        if self.config.scaling == "network":
            return None
        return {index for index, _ in self._scale_of_hops(places)}

    def _scales(
        self, genome: Sequence[float], places: Sequence[int], hops: Sequence[Layer]
    ) -> list[float]:
        numbers = genome[len(self.places) :]
        if self.config.scaling == "network":
            return self._network(numbers, hops)
        scales = [1.0] * len(hops)
        for index, hop in self._scale_of_hops(places):
            scales[hop] = float(numbers[index])
        return scales

    def _network(self, theta: Sequence[float], hops: Sequence[Layer]) -> list[float]:
        """Scale of each hop from the layer before, its own layer and the step; 1 for the first."""
        span, units = self.config.scale, self.config.hidden
        index = {layer: number for number, layer in enumerate(self.layers)}
        total, steps = len(self.layers), max(1, len(self.places))
        scales = [1.0]
        for step, (before, after) in enumerate(itertools.pairwise(hops), start=1):
            inputs = (index[before] / total, index[after] / total, step / steps, 1.0)
            out = theta[5 * units]
            for unit in range(units):
                weights = theta[4 * unit : 4 * unit + 4]
                out += theta[4 * units + unit] * math.tanh(
                    sum(w * x for w, x in zip(weights, inputs, strict=True))
                )
            reach = span.high - span.middle if out > 0 else span.middle - span.low
            scale = span.middle + reach * math.tanh(out)
            # The sum is rounded: by an ulp it can leave the range.
            scales.append(min(max(scale, span.low), span.high))
        return scales
