"""Methods that decompose task matrices: the specification's worked examples, and what must hold.

The specification's figures have six decimals and were computed in float64: see
`test_worked_examples`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.merge import Engine
from evomerge.methods import METHODS, Operands
from evomerge.methods.iso_c import IsoCConfig
from evomerge.methods.matrices import polar_factor, svd
from evomerge.methods.opcm import OpcmConfig
from evomerge.methods.tsv_m import TsvMConfig
from evomerge.pool import Pool
from evomerge.recipe import Part, Selector
from fixtures import make_pool
from pools import NAMES, assert_same, build, open_at, recipe_of

TOLERANCE = 1e-6
CONFIGS = {
    "iso_c": IsoCConfig(),
    "tsv_m": TsvMConfig(),
    "opcm": OpcmConfig(),
    "opcm with diagonal": OpcmConfig(alpha=0.7, keep_diagonal=True),
}
UNORDERED = ("iso_c", "tsv_m")
quick = settings(max_examples=25, deadline=None)
shapes = st.sampled_from([(1, 5), (5, 1), (4, 4), (6, 4), (4, 7), (8,), (3, 4, 2), (0, 3)])


def operands(deltas, base=None, shape=None) -> Operands:
    deltas = [torch.as_tensor(delta, dtype=torch.float32) for delta in deltas]
    shape = shape or tuple(deltas[0].shape)
    base = torch.zeros(shape) if base is None else base
    return Operands(
        name="tensor",
        base=base.reshape(-1),
        models=tuple((base + delta).reshape(-1) for delta in deltas),
        model_hashes=tuple(f"hash{index}" for index in range(len(deltas))),
        offset=0,
        shape=shape,
    )


def merge_all(config, *wholes: Operands, scale: float = 1.0) -> list[Tensor]:
    """A model of several tensors, each in its shape."""
    method = METHODS.make(config)
    coefficients = {"scale": (scale,)}
    method.check(coefficients)
    prepared = [method.prepare(whole, 0) for whole in wholes]
    surveyed = ()
    if method.needs.whole_model:
        surveyed = method.survey(lambda: zip(wholes, prepared, strict=True), coefficients)
    return [
        method.combine(whole, statistics + surveyed, coefficients).view(whole.shape)
        for whole, statistics in zip(wholes, prepared, strict=True)
    ]


def merge(config, whole: Operands, scale: float = 1.0) -> Tensor:
    return merge_all(config, whole, scale=scale)[0]


def random_deltas(seed: int, shape, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def assert_close(result: Tensor, expected, tolerance: float = TOLERANCE) -> None:
    assert result.dtype == torch.float32
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)


class TestWorkedExamples:
    tau1 = ((2.0, 0.0), (0.0, 0.5))
    tau2 = ((2.0, 2.0), (2.0, 2.0))
    delta1 = ((3.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0))
    delta2 = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0))

    def test_iso_c(self):
        assert_close(merge(IsoCConfig(), operands((self.tau1, self.tau2))), 3.25 * torch.eye(2))

    def test_tsv_m(self):
        expected = ((2.292893, 0.707107), (0.707107, 3.707107))
        assert_close(merge(TsvMConfig(), operands((self.tau1, self.tau2))), expected)

    def opcm(self, **options) -> Tensor:
        whole = operands((self.delta1, self.delta2), base=torch.eye(3))
        return merge(OpcmConfig(**options), whole)

    def test_opcm(self):
        merged = self.opcm(alpha=0.85)
        expected = (
            (3.358802, 0.0, 2.358802),
            (0.0, 2.572535, 4.717604),
            (5.503872, 6.290139, 1.786267),
        )
        assert_close(merged, expected)
        assert float((merged - torch.eye(3)).norm()) == pytest.approx(10.3118, abs=5e-5)

    def test_opcm_with_the_diagonal_kept(self):
        expected = (
            (2.879192, 0.0, 1.879192),
            (0.0, 2.252795, 3.758384),
            (4.384781, 5.011178, 7.263973),
        )
        assert_close(self.opcm(alpha=0.85, keep_diagonal=True), expected)

    def test_opcm_that_protects_nothing(self):
        # r = 0: all of the second matrix but its diagonal is added.
        raw = torch.tensor(self.delta1) + torch.tensor(self.delta2)
        raw -= torch.diag(torch.tensor(self.delta2).diagonal())
        merged = self.opcm(alpha=0.4)
        assert_close((merged - torch.eye(3)) * 1.343743, raw, tolerance=8 * TOLERANCE)


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(shape=shapes, count=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_experts_equal_to_the_base_give_the_base(name, shape, count, seed):
    (base,) = random_deltas(seed, shape, 1)
    whole = operands([torch.zeros(shape)] * count, base=base)
    assert torch.equal(merge(CONFIGS[name], whole), base)


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(shape=shapes, scale=st.integers(-16, 16).map(lambda n: n / 8), seed=st.integers(0, 2**31))
def test_the_scale_multiplies_the_edit(name, shape, scale, seed):
    whole = operands(random_deltas(seed, shape, 3))
    one = merge(CONFIGS[name], whole)
    assert_close(merge(CONFIGS[name], whole, scale=scale), one.double() * scale, 1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(shape=st.sampled_from([(4, 4), (6, 4), (4, 7)]), seed=st.integers(0, 2**31))
def test_a_transposed_tensor_is_merged_alike(name, shape, seed):
    """GPT-2 stores its matrices the other way round."""
    deltas = random_deltas(seed, shape, 2)
    turned = merge(CONFIGS[name], operands([delta.T for delta in deltas]))
    assert_close(merge(CONFIGS[name], operands(deltas)), turned.T.double(), 1e-4)


@pytest.mark.parametrize("name", UNORDERED)
@quick
@given(shape=shapes, seed=st.integers(0, 2**31), data=st.data())
def test_the_order_of_experts_does_not_count(name, shape, seed, data):
    deltas = random_deltas(seed, shape, 3)
    order = data.draw(st.permutations(range(3)))
    merged = merge(CONFIGS[name], operands([deltas[index] for index in order]))
    assert_close(merge(CONFIGS[name], operands(deltas)), merged.double(), 1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_blocks_give_what_the_whole_gives(name):
    whole = operands(random_deltas(0, (6, 5), 3))
    method = METHODS.make(CONFIGS[name])
    statistics = method.prepare(whole, 0)
    if method.needs.whole_model:
        statistics += method.survey(lambda: [(whole, statistics)], {"scale": (0.7,)})
    merged = []
    for start in range(0, 30, 7):
        block = replace(
            whole,
            base=whole.base[start : start + 7],
            models=tuple(model[start : start + 7] for model in whole.models),
            offset=start,
        )
        merged.append(method.combine(block, statistics, {"scale": (0.7,)}))
    assert torch.equal(torch.cat(merged).view(6, 5), merge(CONFIGS[name], whole, scale=0.7))


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_operands_are_merged_in_float32(name):
    base, *models = (tensor.bfloat16() for tensor in random_deltas(1, (6, 5), 3))
    block = operands([model.float() for model in models], base=torch.zeros(6, 5))
    block = replace(block, base=base.view(-1), models=tuple(m.view(-1) for m in models))
    widened = replace(
        block, base=base.float().view(-1), models=tuple(m.float() for m in block.models)
    )
    merged = merge(CONFIGS[name], block)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(CONFIGS[name], widened))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_not_lost(name, value):
    deltas = random_deltas(2, (4, 4), 3)
    deltas[1][2, 3] = value
    if METHODS.make(CONFIGS[name]).needs.whole_model:
        with pytest.raises(CandidateError, match="'tensor' is not finite"):
            merge(CONFIGS[name], operands(deltas))
    else:
        assert not merge(CONFIGS[name], operands(deltas)).isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_operands_are_not_changed(name):
    whole = operands(random_deltas(3, (5, 4), 3), base=torch.ones(5, 4))
    before = [tensor.clone() for tensor in (whole.base, *whole.models)]
    merge(CONFIGS[name], whole)
    for tensor, copy in zip((whole.base, *whole.models), before, strict=True):
        assert torch.equal(tensor, copy)


class TestSvd:
    def test_singular_values_of_zero_are_left_out(self):
        (column,) = random_deltas(4, (7, 1), 1)
        parts = svd(column @ torch.ones(1, 5))
        assert parts.u.shape == (7, 1)
        assert parts.v.shape == (5, 1)
        assert_close(parts.u * parts.sigma @ parts.v.T, column.double().expand(7, 5), 1e-5)
        assert svd(torch.zeros(3, 2)).sigma.shape == (0,)

    @quick
    @given(shape=st.sampled_from([(4, 4), (6, 3), (3, 6)]), seed=st.integers(0, 2**31))
    def test_the_polar_factor_has_orthonormal_columns_or_rows(self, shape, seed):
        factor = polar_factor(random_deltas(seed, shape, 1)[0])
        gram = factor.T @ factor if shape[0] >= shape[1] else factor @ factor.T
        assert_close(gram, torch.eye(min(shape)).double(), 1e-5)


class TestIsoC:
    @quick
    @given(shape=st.sampled_from([(4, 4), (6, 4), (4, 7)]), seed=st.integers(0, 2**31))
    def test_the_spectrum_is_flat_at_its_mean(self, shape, seed):
        deltas = random_deltas(seed, shape, 3)
        sigma = torch.linalg.svdvals(torch.stack(deltas).sum(dim=0).double())
        merged = torch.linalg.svdvals(merge(IsoCConfig(), operands(deltas)).double())
        torch.testing.assert_close(merged, sigma.mean().expand(4), rtol=1e-4, atol=1e-4)

    def test_directions_that_no_expert_moved_stay_still(self):
        merged = merge(IsoCConfig(), operands([torch.diag(torch.tensor([6.0, 0.0, 0.0]))]))
        assert_close(merged, torch.diag(torch.tensor([2.0, 0.0, 0.0])))

    @pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
    @pytest.mark.parametrize("config", [IsoCConfig(), TsvMConfig()])
    def test_other_tensors_take_the_mean(self, config, shape):
        deltas = random_deltas(5, shape, 3)
        assert_close(merge(config, operands(deltas)), torch.stack(deltas).double().mean(dim=0))


class TestTsvM:
    def test_one_expert_is_itself(self):
        (delta,) = random_deltas(6, (5, 4), 1)
        assert_close(merge(TsvMConfig(), operands([delta])), delta.double(), 1e-5)

    def test_experts_in_orthogonal_directions_are_added(self):
        first, second = torch.zeros(4, 4), torch.zeros(4, 4)
        first[:2, :2] = torch.tensor(((1.0, 2.0), (-3.0, 1.0)))
        second[2:, 2:] = torch.tensor(((0.5, 1.0), (2.0, 1.0)))
        assert_close(
            merge(TsvMConfig(), operands([first, second])), (first + second).double(), 1e-5
        )

    def test_identical_experts_are_their_greatest_directions(self):
        (delta,) = random_deltas(7, (6, 4), 1)
        parts = svd(delta)
        expected = parts.u[:, :2] * parts.sigma[:2] @ parts.v[:, :2].T
        assert_close(merge(TsvMConfig(), operands([delta, delta])), expected.double(), 1e-5)

    def test_an_expert_equal_to_the_base_turns_nothing(self):
        (delta,) = random_deltas(8, (6, 4), 1)
        parts = svd(delta)
        expected = parts.u[:, :2] * parts.sigma[:2] @ parts.v[:, :2].T
        merged = merge(TsvMConfig(), operands([delta, torch.zeros(6, 4)]))
        assert_close(merged, expected.double(), 1e-5)

    def test_matrices_too_small_to_share_take_the_mean(self):
        deltas = random_deltas(9, (2, 5), 3)
        assert_close(
            merge(TsvMConfig(), operands(deltas)), torch.stack(deltas).double().mean(dim=0)
        )


class TestOpcm:
    def full(self, tensors: list[list[Tensor]], config: OpcmConfig) -> list[Tensor]:
        """The paper's sequence in float64: full decompositions, the rescaling at every step."""
        merged = [deltas[0].double() for deltas in tensors]
        lengths, factor = [], 1.0
        for step in range(len(tensors[0])):
            taus = [deltas[step].double() for deltas in tensors]
            lengths.append(math.sqrt(sum(float(tau.square().sum()) for tau in taus)))
            if step == 0:
                continue
            raw = []
            for tau, before in zip(taus, merged, strict=True):
                clean = tau
                if tau.ndim == 2:
                    u, sigma, vh = torch.linalg.svd(before, full_matrices=True)
                    share = sigma.cumsum(dim=0) / sigma.sum()
                    r = int(torch.nonzero(share > config.alpha)[0])
                    p = u.T @ tau @ vh.T
                    if not config.keep_diagonal:
                        p.diagonal().zero_()
                    p[:r, :r] = 0.0
                    clean = u @ p @ vh
                raw.append(factor * before + clean)
            length = math.sqrt(sum(float(part.square().sum()) for part in raw))
            factor = length / (sum(lengths) / len(lengths))
            merged = [part / factor for part in raw]
        return merged

    @pytest.mark.parametrize("keep_diagonal", [False, True])
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.85, 0.999])
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_is_the_papers_sequence(self, alpha, keep_diagonal, count):
        config = OpcmConfig(alpha=alpha, keep_diagonal=keep_diagonal)
        shapes = ((4, 4), (7, 4), (3, 6), (5,))
        tensors = [random_deltas(10 + index, shape, count) for index, shape in enumerate(shapes)]
        merged = merge_all(config, *(operands(deltas) for deltas in tensors))
        for result, expected in zip(merged, self.full(tensors, config), strict=True):
            assert_close(result, expected, 2e-5)

    def test_one_expert_is_itself(self):
        (delta,) = random_deltas(11, (5, 4), 1)
        assert torch.equal(merge(OpcmConfig(), operands([delta])), delta)

    def test_the_models_edit_has_the_experts_mean_length(self):
        first, second = random_deltas(12, (5, 4), 3), random_deltas(13, (6,), 3)
        merged = merge_all(OpcmConfig(), operands(first), operands(second))
        lengths = [
            math.hypot(float(a.norm()), float(b.norm())) for a, b in zip(first, second, strict=True)
        ]
        length = math.hypot(*(float(tensor.norm()) for tensor in merged))
        assert length == pytest.approx(sum(lengths) / 3, rel=1e-6)

    @pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
    def test_shares_outside_are_refused(self, alpha):
        with pytest.raises(ValidationError, match="alpha"):
            OpcmConfig(alpha=alpha)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("pool")))


class TestEngine:
    def part(self, name, select=(), **parameters) -> Part:
        return Part(select=select, method=CONFIGS[name], models=NAMES, parameters=parameters)

    @pytest.mark.parametrize("name", CONFIGS)
    def test_recipes_are_rebuilt_bit_for_bit(self, name, pool):
        recipe = recipe_of(pool, self.part(name, scale=0.8))
        engine = Engine(pool)
        first = dict(engine.tensors(recipe))
        assert_same(first, dict(engine.tensors(recipe)))
        # Nothing kept: everything is computed again for each tensor.
        assert_same(first, build(pool, recipe, statistics_budget_bytes=0))

    def test_opcm_measures_the_whole_model(self, pool):
        """Also where it merges a part of it."""
        whole = build(pool, recipe_of(pool, self.part("opcm")))
        inner = self.part("opcm", (Selector(components=("mlp",)),))
        mixed = build(pool, recipe_of(pool, inner, self.part("iso_c")))
        for name, place in pool.layout.places.items():
            if place.component == "mlp":
                assert torch.equal(mixed[name], whole[name])

        def length(tensors) -> float:
            edits = [float((tensors(n) - pool.base.tensor(n)).double().norm()) for n in whole]
            return math.hypot(*edits)

        expected = sum(length(pool[expert].tensor) for expert in NAMES) / len(NAMES)
        assert length(whole.__getitem__) == pytest.approx(expected, rel=1e-5)
