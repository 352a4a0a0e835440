"""Elements of the same magnitude, of which a density keeps some."""

from __future__ import annotations

import pytest
import torch

from evomerge.methods import METHODS
from evomerge.methods.breadcrumbs import BreadcrumbsConfig
from evomerge.methods.protocol import Operands
from evomerge.methods.sce import SceConfig
from evomerge.methods.ties import TiesConfig

SIZE, SHAPE = 1000, (40, 25)
"""Elements, of ten magnitudes."""

COEFFICIENTS = {
    "ties": {"weight": (1.0,), "density": (0.25,), "scale": (1.0,)},
    "breadcrumbs": {"weight": (1.0,), "density": (0.25,), "gamma": (0.13,), "scale": (1.0,)},
    "sce": {"select_topk": (0.25,)},
}

CONFIGS = {"ties": TiesConfig, "breadcrumbs": BreadcrumbsConfig, "sce": SceConfig}


def operands(generator: torch.Generator) -> Operands:
    """A base of zeros and a model of few magnitudes; for sce another that has none."""
    delta = torch.randint(1, 11, (SIZE,), generator=generator).float()
    delta *= torch.randint(0, 2, (SIZE,), generator=generator) * 2.0 - 1.0
    return Operands("w", torch.zeros(SIZE), (delta,), ("a",), 0, SHAPE)


def merged(config, whole: Operands, block: int = SIZE) -> torch.Tensor:
    method, coefficients = METHODS.make(config), COEFFICIENTS[config.kind]
    if config.kind == "sce":
        models = (whole.models[0], torch.zeros(SIZE))
        whole = Operands("w", whole.base, models, ("a", "b"), 0, SHAPE)
        block = SIZE
    statistics = method.prepare(whole, 0)
    statistics += method.settle(whole, statistics, coefficients)
    found = []
    for start in range(0, SIZE, block):
        here = slice(start, start + block)
        part = Operands(
            "w",
            whole.base[here],
            tuple(model[here] for model in whole.models),
            whole.model_hashes,
            start,
            whole.shape,
        )
        found.append(method.combine(part, statistics, coefficients))
    return torch.cat(found)


@pytest.mark.parametrize("kind", CONFIGS)
def test_exactly_as_many_as_the_density_says(kind):
    whole = operands(torch.Generator().manual_seed(0))
    found = merged(CONFIGS[kind](equal="first"), whole)
    assert found.count_nonzero() == SIZE // 4
    assert torch.equal(found, merged(CONFIGS[kind](equal="first"), whole, block=300))
    # No smaller one is kept in the place of a larger one.
    kept, dropped = whole.models[0][found != 0].abs(), whole.models[0][found == 0].abs()
    if kind != "breadcrumbs":
        assert kept.min() >= dropped.max()
        assert merged(CONFIGS[kind](), whole).count_nonzero() > SIZE // 4


@pytest.mark.parametrize("kind", CONFIGS)
def test_where_none_are_equal_nothing_is_different(kind):
    generator = torch.Generator().manual_seed(0)
    whole = operands(generator)
    model = torch.randn(SIZE, generator=generator)
    whole = Operands("w", whole.base, (model,), ("a",), 0, SHAPE)
    assert torch.equal(merged(CONFIGS[kind](equal="first"), whole), merged(CONFIGS[kind](), whole))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_default_is_no_part_of_a_recipes_hash(kind):
    assert "equal" not in CONFIGS[kind]().identity()
    assert CONFIGS[kind](equal="first").identity()["equal"] == "first"


def test_a_whole_model_is_not_sorted():
    with pytest.raises(ValueError, match="`equal: first` sorts a tensor"):
        TiesConfig(scope="model", equal="first")
