"""The engine does what one must, with the tensors that it names and no others."""

import pytest
import torch
from evomerge_example.backend import Bigram, BigramConfig
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.models.candidates import Candidates
from evomerge.pool import PoolConfig, open_pool
from evomerge.space import recipes
from evomerge.testing.backends import check_backend

CPU = torch.device("cpu")


@pytest.fixture
def pool(tmp_path):
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    for seed, name in enumerate(("base", "expert")):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(tmp_path / name)
    return open_pool(PoolConfig(base="base", experts=("expert",)), tmp_path)


class Letters:
    def decode(self, tokens):
        return "".join(chr(97 + token) for token in tokens)


def test_it_does_what_an_engine_must(pool):
    backend = Bigram(BigramConfig(), pool, CPU, Letters(), None)
    members = [recipes.member(pool, name) for name in ("base", "expert")]
    check_backend(backend, Candidates(pool, CPU, backend).load, members, 40)
