"""The worked examples of the methods' specification, which were computed in float64.

Its figures have six decimals, so they carry an error of 5e-7 themselves; float32 adds about as
much to numbers of size one. Hence the tolerance of 1e-6. Task vectors are given over a base of
zero where a result is a task vector: a difference of rounded numbers would add an error of its
own, which a small divisor multiplies.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evomerge.kernels.blocks import weighted_sum
from evomerge.methods import METHODS, Operands
from evomerge.methods.arithmetic import add_scaled
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig, mask_and_rescale
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig, merge_agreeing
from merges import settled

TOLERANCE = 1e-6

BASE = (1.00, -2.00, 0.50, 3.00, 0.00, -1.00)
TAU_A = (0.40, -0.10, 0.00, 0.30, -0.20, 0.05)
TAU_B = (-0.10, -0.30, 0.20, 0.10, 0.50, -0.02)
TAU_C = (0.20, 0.25, -0.15, 0.02, 0.10, -0.30)
TAUS = (TAU_A, TAU_B, TAU_C)
ZERO = (0.0,) * 6

MASKS = ("101100", "011010", "110001")


def theta(tau):
    return tuple(b + t for b, t in zip(BASE, tau, strict=True))


MODELS = tuple(theta(tau) for tau in TAUS)


def operands(models, base=BASE) -> Operands:
    return Operands(
        name="fixture",
        base=None if base is None else torch.tensor(base),
        models=tuple(torch.tensor(model) for model in models),
        model_hashes=tuple(f"hash{index}" for index in range(len(models))),
        offset=0,
        shape=(len(models[0]),),
    )


def merge(config, block: Operands, **coefficients) -> Tensor:
    method = METHODS.make(config)
    defaults = {
        parameter.name: (parameter.default,)
        * (1 if parameter.scope == "shared" else len(block.models))
        for parameter in method.parameters
    }
    values = defaults | coefficients
    method.check(values)
    return method.combine(block, settled(method, block, 0, values), values)


def assert_close(result: Tensor, expected) -> None:
    assert result.dtype == torch.float32
    torch.testing.assert_close(
        result.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=TOLERANCE
    )


class TestLinear:
    @pytest.mark.parametrize(
        ("weights", "expected"),
        [
            ((1.0, 1.0, 1.0), (1.166667, -2.05, 0.516667, 3.14, 0.133333, -1.09)),
            ((1.0, 2.0, 1.0), (1.1, -2.1125, 0.5625, 3.13, 0.225, -1.0725)),
            ((0.5, 0.5, 0.0), (1.15, -2.2, 0.6, 3.2, 0.15, -0.985)),
        ],
    )
    def test_weighted_mean(self, weights, expected):
        assert_close(merge(LinearConfig(), operands(MODELS, base=None), weight=weights), expected)

    def test_plain_sum(self):
        # The combination of the specification's section 7.6, whose weights sum to one.
        weights, expected = (1.5, -0.8, 0.3), (1.74, -1.835, 0.295, 3.376, -0.67, -0.999)
        block = operands(MODELS, base=None)
        assert_close(merge(LinearConfig(normalize=False), block, weight=weights), expected)
        doubled = merge(LinearConfig(normalize=False), block, weight=(3.0, -1.6, 0.6))
        assert_close(doubled / 2, expected)


class TestSlerp:
    def test_orthogonal(self):
        block = operands(((3.0, 0.0, 0.0), (0.0, 4.0, 0.0)), base=None)
        assert_close(merge(SlerpConfig(), block, t=(0.5,)), (2.12132, 2.828427, 0.0))

    def test_models(self):
        block = operands(MODELS[:2], base=None)
        method = METHODS.make(SlerpConfig())
        (cosine,) = method.prepare(block, 0)
        assert cosine.item() == pytest.approx(0.976287, abs=TOLERANCE)
        expected = (1.280344, -2.159793, 0.552617, 3.264427, -0.024588, -0.971892)
        assert_close(merge(SlerpConfig(), block, t=(0.25,)), expected)

    def test_task_vectors(self):
        block = operands(TAUS[:2], base=None)
        method = METHODS.make(SlerpConfig())
        (cosine,) = method.prepare(block, 0)
        assert cosine.item() == pytest.approx(-0.232742, abs=TOLERANCE)
        merged = merge(SlerpConfig(), block, t=(0.25,)) + torch.tensor(BASE)
        assert_close(merged, (1.356834, -2.234992, 0.589713, 3.346125, 0.023437, -0.95876))

    def test_lerp_above_the_threshold(self):
        def vectors(angle):
            return ((1.0, 0.0), (math.cos(angle), math.sin(angle)))

        t = 0.25
        for cosine in (0.9996, 0.9994):
            first, second = vectors(math.acos(cosine))
            if cosine > 0.9995:
                shares = (1 - t, t)
            else:
                angle = math.acos(cosine)
                shares = tuple(math.sin(share * angle) / math.sin(angle) for share in (1 - t, t))
            expected = [shares[0] * a + shares[1] * b for a, b in zip(first, second, strict=True)]
            merged = merge(SlerpConfig(), operands((first, second), base=None), t=(t,))
            # The two formulas are 1.1e-4 apart here in the sum of their shares.
            assert_close(merged, expected)

    def test_opposite_and_zero_tensors_are_interpolated_linearly(self):
        opposite = operands(((1.0, 2.0), (-1.0, -2.0)), base=None)
        assert_close(merge(SlerpConfig(), opposite, t=(0.25,)), (0.5, 1.0))
        zero = operands(((0.0, 0.0), (4.0, 8.0)), base=None)
        assert_close(merge(SlerpConfig(), zero, t=(0.25,)), (1.0, 2.0))


class TestTaskArithmetic:
    @pytest.mark.parametrize(
        ("weights", "scale", "expected"),
        [
            ((0.4, 0.4, 0.4), 1.0, (1.2, -2.06, 0.52, 3.168, 0.16, -1.108)),
            ((1.0, 1.0, 1.0), 0.4, (1.2, -2.06, 0.52, 3.168, 0.16, -1.108)),
            ((0.5, 0.3, -0.2), 1.0, (1.13, -2.19, 0.59, 3.176, 0.03, -0.921)),
            ((0.3, 0.5, 0.1), 1.0, (1.09, -2.155, 0.585, 3.142, 0.2, -1.025)),
        ],
    )
    def test_sum_of_task_vectors(self, weights, scale, expected):
        merged = merge(TaskArithmeticConfig(), operands(MODELS), weight=weights, scale=(scale,))
        assert_close(merged, expected)


class TestTies:
    half = (0.5, 0.5, 0.5)

    def test_exact_trim(self):
        merged = merge(TiesConfig(vectors="same"), operands(MODELS), density=self.half)
        assert_close(merged, (1.3, -2.3, 0.7, 3.3, 0.5, -1.3))

    def test_official_threshold_keeps_ties(self):
        # Four of six; B's fourth and fifth largest are both 0.1 and both stay.
        density = (4 / 6,) * 3
        merged = merge(TiesConfig(vectors="same"), operands(TAUS, ZERO), density=density)
        assert_close(merged, (0.3, -0.2, 0.2, 0.2, 0.5, -0.3))

    @pytest.mark.parametrize(
        ("weights", "normalize", "expected"),
        [
            ((1.0, 1.0, 0.5), True, (0.333333, -0.3, 0.2, 0.3, 0.5, -0.3)),
            ((1.0, 1.0, 0.5), False, (0.5, -0.3, 0.2, 0.3, 0.5, -0.15)),
            # The divisor of the second element is 0.1.
            ((1.0, -0.4, 0.5), True, (0.333333, 2.45, 0.2, 0.3, -0.666667, -0.3)),
        ],
    )
    def test_weights(self, weights, normalize, expected):
        config = TiesConfig(vectors="same", normalize=normalize)
        merged = merge(config, operands(TAUS, ZERO), weight=weights, density=self.half)
        assert_close(merged, expected)

    def test_scale_multiplies_the_merged_task_vector(self):
        config = TiesConfig(vectors="same")
        merged = merge(config, operands(MODELS), density=self.half, scale=(0.5,))
        assert_close(merged, (1.15, -2.15, 0.6, 3.15, 0.25, -1.15))

    def test_vectors_are_left_whole_by_default(self):
        # The weighted mean of the task vectors: nothing trimmed, no election.
        merged = merge(TiesConfig(), operands(MODELS), density=self.half, weight=(1.0, 2.0, 1.0))
        assert_close(merged, (1.1, -2.1125, 0.5625, 3.13, 0.225, -1.0725))

    def test_a_mass_of_zero_counts_as_positive(self):
        block = operands(((0.25,), (-0.25,)), (0.0,))
        assert_close(merge(TiesConfig(vectors="same"), block), (0.25,))


class TestDare:
    def masked(self, density=0.5):
        masks = [torch.tensor([bit == "1" for bit in mask]) for mask in MASKS]
        return [
            mask_and_rescale(torch.tensor(tau), mask, density)
            for tau, mask in zip(TAUS, masks, strict=True)
        ]

    def test_masked_and_rescaled(self):
        expected = (
            (0.8, 0.0, 0.0, 0.6, 0.0, 0.0),
            (0.0, -0.6, 0.4, 0.0, 1.0, 0.0),
            (0.4, 0.5, 0.0, 0.0, 0.0, -0.6),
        )
        for delta, numbers in zip(self.masked(), expected, strict=True):
            assert_close(delta, numbers)

    def test_linear(self):
        delta = weighted_sum(self.masked(), (0.5, 0.5, 0.5))
        merged = add_scaled(operands(MODELS), delta, 1.0)
        assert_close(merged, (1.6, -2.05, 0.7, 3.3, 0.5, -1.3))

    def test_ties_mean(self):
        merged = merge_agreeing(self.masked(), (1.0, 1.0, 1.0), normalize=True)
        assert_close(merged, (0.6, -0.6, 0.4, 0.6, 1.0, -0.6))

    def test_ties_sum_of_other_factors(self):
        # mergekit's factors keep the L1 norm; the merge after them is the same.
        deltas = [
            delta * 0.5 * factor
            for delta, factor in zip(self.masked(), (1.5, 1.22, 1.36), strict=True)
        ]
        merged = merge_agreeing(deltas, (0.5, 0.5, 0.5), normalize=False)
        assert_close(merged, (0.436, -0.183, 0.122, 0.225, 0.305, -0.204))

    @pytest.mark.parametrize("config", [DareLinearConfig(), DareTiesConfig()])
    def test_vectors_are_left_whole_by_default(self, config):
        merged = merge(config, operands(MODELS), weight=(0.5, 0.3, -0.2), density=(0.1, 0.1, 0.1))
        assert_close(merged, (1.13, -2.19, 0.59, 3.176, 0.03, -0.921))
