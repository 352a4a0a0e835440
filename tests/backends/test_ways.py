"""The way of a model is found by trial, and what it gives is lm-eval's."""

from __future__ import annotations

import pytest
from transformers import (
    BloomConfig,
    DeepseekV32Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    MambaConfig,
    RecurrentGemmaConfig,
)
from transformers.models.gemma3n import Gemma3nTextConfig
from transformers.models.gemma4 import Gemma4TextConfig

from backends.conftest import GREEDY, Hflm, ask, asker, close, pairs, random_model
from evomerge.backends.passes import WAYS
from evomerge.backends.proof import exact_way
from evomerge.backends.rotary import forget_lengths
from evomerge.backends.sizes import TokenSize
from families import FAMILIES, family_config

BY_TYPE = ("Qwen2", "Qwen3", "Gemma2", "Gemma3")


def test_the_way_is_found_by_trial(family, model):
    expected = "trees_by_type" if family in BY_TYPE else "trees"
    if family == "Mistral":
        expected = "trees_in_window"
    assert exact_way(model.config) == expected
    assert exact_way(model.config, seed=3) == expected


SMALL = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
OTHERS = {
    "state space": (MambaConfig(**SMALL, state_size=4), "plain"),
    "positions in the attention": (BloomConfig(**SMALL, n_head=2, n_layer=2), "plain"),
    "windows nobody is told of": (
        GPTNeoConfig(
            **SMALL,
            num_heads=2,
            num_layers=2,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            max_position_embeddings=64,
        ),
        "plain",
    ),
    "such windows at the end": (
        GPTNeoConfig(
            **SMALL | {"num_hidden_layers": 12},
            num_heads=2,
            attention_types=[[["global"], 6], [["local"], 6]],
            window_size=4,
            max_position_embeddings=64,
        ),
        "plain",
    ),
    "state spaces at the end": (
        RecurrentGemmaConfig(
            **SMALL | {"num_hidden_layers": 8},
            intermediate_size=48,
            num_attention_heads=2,
            num_key_value_heads=1,
            lru_width=16,
            attention_window_size=100,
            block_types=["attention"] * 4 + ["recurrent"] * 4,
        ),
        "plain",
    ),
    "layers that see what follows": (
        Gemma3TextConfig(
            **SMALL,
            intermediate_size=24,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            use_bidirectional_attention=True,
        ),
        "plain_whole",
    ),
    "layers that choose among what follows": (
        DeepseekV32Config(
            **SMALL,
            intermediate_size=24,
            moe_intermediate_size=8,
            first_k_dense_replace=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=4,
            index_n_heads=2,
            index_head_dim=8,
            index_topk=26,
        ),
        "plain_whole",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_shares_nothing_is_run_whole(name):
    config, way = OTHERS[name]
    assert exact_way(config) == way
    model = random_model(config)
    made = asker(model)
    expected = Hflm(model).ask("loglikelihood", pairs())
    answers = ask(made, "loglikelihood", pairs())
    assert all(close(a, b) for (a, _), (b, _) in zip(answers, expected, strict=True))
    asked = [(text, GREEDY) for text, _ in pairs() if text]
    assert ask(made, "generate_until", asked) == Hflm(model).ask("generate_until", asked)


LENGTHS = {
    "Phi-3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
        "original_max_position_embeddings": 40,
    },
    "Llama": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
}


@pytest.mark.parametrize("name", LENGTHS)
def test_rotary_frequencies_that_depend_on_the_length(name):
    config = family_config(name, **LENGTHS[name])
    assert exact_way(config) == "trees"
    model = random_model(config)
    if name == "Llama":
        # Its frequencies change behind the last position, which no request gets to by itself.
        model.config.max_position_embeddings = 40
        rotary = model.model.rotary_emb
        rotary.original_max_seq_len = rotary.max_seq_len_cached = 40
    made = asker(model)
    made._encoder.max_length = 64
    for shots in (30, 45, 20):
        asked = pairs(shots)
        oracle = Hflm(model)
        oracle.lm._max_length = 64
        expected = []
        for one in asked:
            forget_lengths(model)
            expected += oracle.ask("loglikelihood", [one])
        answers = ask(made, "loglikelihood", asked)
        assert all(close(a, b) for (a, _), (b, _) in zip(answers, expected, strict=True))
        assert ask(made, "loglikelihood", asked) == answers
    texts = [(text, GREEDY | {"max_gen_toks": 9}) for text, _ in pairs(25) if text]
    if name == "Phi-3":
        assert ask(made, "generate_until", texts) == Hflm(model).ask("generate_until", texts)


@pytest.mark.parametrize("config", [Gemma3nTextConfig(), Gemma4TextConfig()])
def test_layers_of_several_sizes_are_tried(config):
    assert exact_way(config) == "trees_by_type"
    assert TokenSize.of(config).layer >= 2 * config.num_key_value_heads * 256


def test_a_broken_config_is_run_whole():
    config = family_config("Llama")
    config.num_key_value_heads = 3
    assert exact_way(config) in WAYS


def test_every_family_is_tried():
    assert set(BY_TYPE) < set(FAMILIES)
