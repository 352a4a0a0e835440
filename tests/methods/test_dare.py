"""Which elements DARE keeps."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.methods import METHODS, Operands
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from merges import merge, quick


def kept_elements(config, block: Operands, share: float, mask_seed: int = 0) -> Tensor:
    return merge(config, block, mask_seed, density=(share,) * len(block.models)) != block.base


def ones(size: int, name: str = "tensor", model_hash: str = "hash") -> Operands:
    return Operands(name, torch.zeros(size), (torch.ones(size),), (model_hash,), 0, (1, size))


class TestDareMasks:
    config = DareLinearConfig()

    @quick
    @given(
        low=st.floats(0, 1),
        high=st.floats(0, 1),
        seed=st.integers(0, 2**40),
    )
    def test_nested_in_the_density(self, low, high, seed):
        low, high = sorted((low, high))
        inner = kept_elements(self.config, ones(500), low, seed)
        outer = kept_elements(self.config, ones(500), high, seed)
        assert not (inner & ~outer).any()

    def test_share_and_factor(self):
        size, share = 40_000, 0.3
        merged = merge(self.config, ones(size), density=(share,))
        kept = merged[merged != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / share))
        # Five standard deviations of a binomial share.
        assert abs(len(kept) / size - share) < 5 * (share * (1 - share) / size) ** 0.5

    def test_ends(self):
        assert not kept_elements(self.config, ones(500), 0.0).any()
        assert kept_elements(self.config, ones(500), 1.0).all()

    def test_depend_on_seed_name_and_model(self):
        size = 400
        plain = kept_elements(self.config, ones(size), 0.5)
        assert torch.equal(plain, kept_elements(self.config, ones(size), 0.5))
        for other in (
            kept_elements(self.config, ones(size), 0.5, mask_seed=1),
            kept_elements(self.config, ones(size, name="another"), 0.5),
            kept_elements(self.config, ones(size, model_hash="another"), 0.5),
        ):
            # Independent masks agree in half of the places: 200 +- 10.
            assert 140 < int((plain == other).sum()) < 260

    def test_do_not_depend_on_the_order_of_tensors_or_models(self):
        method = METHODS.make(self.config)
        forward = {n: method.prepare(ones(100, n), 0)[0] for n in ("a", "b", "c")}
        backward = {n: method.prepare(ones(100, n), 0)[0] for n in ("c", "b", "a")}
        for name, uniforms in forward.items():
            assert torch.equal(uniforms, backward[name])
        pair = replace(ones(100, "a"), models=(torch.ones(100),) * 2, model_hashes=("x", "hash"))
        assert torch.equal(method.prepare(pair, 0)[1], forward["a"])

    def test_are_shared_by_linear_and_ties(self):
        for share in (0.1, 0.5):
            assert torch.equal(
                kept_elements(DareLinearConfig(), ones(300), share),
                kept_elements(DareTiesConfig(), ones(300), share),
            )

    def test_stay_what_they_were(self):
        # A recipe of an older release must give the same model: these may never change.
        uniforms = METHODS.make(self.config).prepare(ones(8, "layer.weight", "ab" * 32), 42)[0]
        assert uniforms.tolist() == GOLDEN_UNIFORMS


# SHA-256 of "42\0layer.weight\0abab...", its first eight bytes little-endian as the key.
GOLDEN_UNIFORMS = [11657, 45912, 23594, 33375, 47962, 16873, 45995, 36680]
