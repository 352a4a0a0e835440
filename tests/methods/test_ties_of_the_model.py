"""TIES whose trim is over the whole model (arXiv 2306.01708, algorithm 1)."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Operands
from evomerge.methods.ties import TiesConfig
from merges import values
from six_elements import assert_close


def tensors(*rows, shapes=None):
    """Tensors of one model over a base of zeros."""
    shapes = shapes or [(1, len(row)) for row in rows]
    return [
        Operands(f"t{i}", torch.zeros(len(row)), (torch.tensor(row),), ("h",), 0, shape)
        for i, (row, shape) in enumerate(zip(rows, shapes, strict=True))
    ]


def merged(config, wholes, **given):
    method = METHODS.make(config)
    coefficients = values(config, len(wholes[0].models), **given)
    surveyed = method.survey(lambda: [(w, method.prepare(w, 0)) for w in wholes], coefficients)
    return [method.combine(w, (*method.prepare(w, 0), *surveyed), coefficients) for w in wholes]


def test_the_specification_s_example():
    wholes = tensors([0.9, 0.8, -0.7], [0.1, -0.2, 0.05])
    first, second = merged(TiesConfig(scope="model"), wholes, density=(1 / 3,))
    assert_close(first, (0.9, 0.8, 0.0))
    assert_close(second, (0.0, 0.0, 0.0))


def test_one_tensor_alone_is_the_tensor_s_scope():
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(500, generator=generator).round(decimals=1) for _ in range(4))
    whole = Operands("t", base, tuple(models), ("a", "b", "c"), 0, (5, 100))
    given = {"weight": (0.5, 0.3, 0.2), "density": (0.25, 0.6, 1.0)}
    (of_model,) = merged(TiesConfig(scope="model"), [whole], **given)
    config = TiesConfig()
    method = METHODS.make(config)
    coefficients = values(config, 3, **given)
    statistics = method.prepare(whole, 0)
    statistics += method.settle(whole, statistics, coefficients)
    assert torch.equal(of_model, method.combine(whole, statistics, coefficients))


def test_vectors_that_are_left_whole_do_not_count():
    wholes = tensors([5.0, 6.0], [0.3, 0.2, 0.1, 0.05], shapes=[(2,), (2, 2)])
    vector, matrix = merged(TiesConfig(scope="model"), wholes, density=(0.5,))
    assert_close(vector, (5.0, 6.0))
    assert_close(matrix, (0.3, 0.2, 0.0, 0.0))
    vector, matrix = merged(TiesConfig(scope="model", vectors="same"), wholes, density=(0.5,))
    assert_close(vector, (5.0, 6.0))
    assert_close(matrix, (0.3, 0.0, 0.0, 0.0))


def test_keeping_none_can_be_refused():
    wholes = tensors([0.9, 0.8], [0.1])
    with pytest.raises(CandidateError, match=r"the whole model: density 0\.1 of 3 elements"):
        merged(TiesConfig(scope="model", none_kept="refuse"), wholes, density=(0.1,))
