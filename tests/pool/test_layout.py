"""Layouts of model families: every persistent tensor has one place, and the right one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from evomerge.errors import InputError
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.layout import Place, hollow_model, layout_of
from evomerge.pool.names import is_computed, use_model_names

NUM_LAYERS = 3
SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 32, "n_embd": 16, "n_layer": NUM_LAYERS, "n_head": 2, "n_positions": 32}
NEOX = {
    key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")
}

FAMILIES = {
    "Llama": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "Llama, tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "Llama, biases": LlamaConfig(
        **SMALL, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
    ),
    "Mistral": MistralConfig(**SMALL, tie_word_embeddings=False),
    "Qwen2": Qwen2Config(**SMALL, tie_word_embeddings=False),
    "Qwen2, tied": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "Qwen3": Qwen3Config(**SMALL, tie_word_embeddings=True),
    "Gemma2": Gemma2Config(**SMALL),
    "Gemma3": Gemma3TextConfig(**SMALL),
    "Phi-3": Phi3Config(**SMALL, tie_word_embeddings=False),
    "OLMo-2": Olmo2Config(**SMALL, tie_word_embeddings=False),
    "Mixtral": MixtralConfig(**SMALL, num_local_experts=11, num_experts_per_tok=2),
    "Qwen3-MoE": Qwen3MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8
    ),
    "GPT-2": GPT2Config(**GPT2),
    "GPT-NeoX": GPTNeoXConfig(**NEOX, tie_word_embeddings=False),
}

EXPECTED = {
    "Llama": {
        "model.embed_tokens.weight": Place(None, "embedding"),
        "model.layers.0.self_attn.q_proj.weight": Place(0, "attention"),
        "model.layers.1.self_attn.o_proj.weight": Place(1, "attention"),
        "model.layers.2.mlp.gate_proj.weight": Place(2, "mlp"),
        "model.layers.2.mlp.down_proj.weight": Place(2, "mlp"),
        "model.layers.0.input_layernorm.weight": Place(0, "norm"),
        "model.layers.1.post_attention_layernorm.weight": Place(1, "norm"),
        "model.norm.weight": Place(None, "norm"),
        "lm_head.weight": Place(None, "head"),
    },
    "Llama, tied": {"model.embed_tokens.weight": Place(None, "embedding")},
    "Llama, biases": {
        "model.layers.1.self_attn.q_proj.bias": Place(1, "attention"),
        "model.layers.1.mlp.up_proj.bias": Place(1, "mlp"),
    },
    "Mistral": {
        "model.layers.2.self_attn.k_proj.weight": Place(2, "attention"),
        "lm_head.weight": Place(None, "head"),
    },
    "Qwen2": {
        "model.layers.1.self_attn.v_proj.bias": Place(1, "attention"),
        "model.layers.1.mlp.up_proj.weight": Place(1, "mlp"),
        "lm_head.weight": Place(None, "head"),
    },
    "Qwen2, tied": {"model.norm.weight": Place(None, "norm")},
    # Norms of queries and keys are inside attention and vary with it.
    "Qwen3": {
        "model.layers.0.self_attn.q_norm.weight": Place(0, "attention"),
        "model.layers.0.self_attn.k_norm.weight": Place(0, "attention"),
        "model.layers.0.input_layernorm.weight": Place(0, "norm"),
    },
    "Gemma2": {
        "model.layers.1.pre_feedforward_layernorm.weight": Place(1, "norm"),
        "model.layers.1.post_feedforward_layernorm.weight": Place(1, "norm"),
        "model.layers.1.post_attention_layernorm.weight": Place(1, "norm"),
        "model.layers.2.mlp.up_proj.weight": Place(2, "mlp"),
    },
    "Gemma3": {
        "model.embed_tokens.weight": Place(None, "embedding"),
        "model.layers.0.self_attn.q_norm.weight": Place(0, "attention"),
        "model.layers.1.pre_feedforward_layernorm.weight": Place(1, "norm"),
        "model.layers.2.mlp.gate_proj.weight": Place(2, "mlp"),
        "model.norm.weight": Place(None, "norm"),
    },
    # Queries, keys and values are one matrix; so are gate and up.
    "Phi-3": {
        "model.layers.0.self_attn.qkv_proj.weight": Place(0, "attention"),
        "model.layers.1.mlp.gate_up_proj.weight": Place(1, "mlp"),
        "model.layers.2.post_attention_layernorm.weight": Place(2, "norm"),
        "lm_head.weight": Place(None, "head"),
    },
    # Norms stand behind attention and feed-forward, and none in front.
    "OLMo-2": {
        "model.layers.0.self_attn.k_norm.weight": Place(0, "attention"),
        "model.layers.1.post_attention_layernorm.weight": Place(1, "norm"),
        "model.layers.1.post_feedforward_layernorm.weight": Place(1, "norm"),
        "model.layers.2.mlp.down_proj.weight": Place(2, "mlp"),
    },
    # The router varies with its experts.
    "Mixtral": {
        "model.layers.0.mlp.gate.weight": Place(0, "mlp"),
        "model.layers.1.mlp.experts.gate_up_proj": Place(1, "mlp"),
        "model.layers.2.mlp.experts.down_proj": Place(2, "mlp"),
        "model.layers.2.self_attn.o_proj.weight": Place(2, "attention"),
        "lm_head.weight": Place(None, "head"),
    },
    "Qwen3-MoE": {
        "model.layers.0.mlp.gate.weight": Place(0, "mlp"),
        "model.layers.1.mlp.experts.gate_up_proj": Place(1, "mlp"),
        "model.layers.1.self_attn.q_norm.weight": Place(1, "attention"),
        "model.layers.2.input_layernorm.weight": Place(2, "norm"),
    },
    "GPT-2": {
        "transformer.wte.weight": Place(None, "embedding"),
        "transformer.wpe.weight": Place(None, "embedding"),
        "transformer.h.0.ln_1.weight": Place(0, "norm"),
        "transformer.h.0.ln_2.bias": Place(0, "norm"),
        "transformer.h.1.attn.c_attn.weight": Place(1, "attention"),
        "transformer.h.1.attn.c_proj.bias": Place(1, "attention"),
        "transformer.h.2.mlp.c_fc.weight": Place(2, "mlp"),
        "transformer.ln_f.weight": Place(None, "norm"),
    },
    "GPT-NeoX": {
        "gpt_neox.embed_in.weight": Place(None, "embedding"),
        "gpt_neox.layers.0.attention.query_key_value.weight": Place(0, "attention"),
        "gpt_neox.layers.0.attention.dense.bias": Place(0, "attention"),
        "gpt_neox.layers.1.mlp.dense_h_to_4h.weight": Place(1, "mlp"),
        "gpt_neox.layers.2.input_layernorm.bias": Place(2, "norm"),
        "gpt_neox.layers.2.post_attention_layernorm.weight": Place(2, "norm"),
        "gpt_neox.final_layer_norm.weight": Place(None, "norm"),
        "lm_head.weight": Place(None, "head"),
    },
}
TIED = {"Llama, tied", "Qwen2, tied", "Qwen3", "Gemma2", "Gemma3", "GPT-2"}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family):
    return AutoModelForCausalLM.from_config(FAMILIES[family])


def test_every_persistent_tensor_has_one_place(family, model):
    layout = layout_of(model)
    names = set(model.state_dict())
    assert set(layout.places) | layout.tied == names
    assert not set(layout.places) & layout.tied
    assert layout.shapes == {n: tuple(t.shape) for n, t in model.state_dict().items()}
    assert (layout.tied == {"lm_head.weight"}) == (family in TIED)
    assert layout.tied or family not in TIED
    assert layout.num_parameters == sum(p.numel() for p in model.parameters())


def test_layers_are_counted_and_alike(model):
    layout = layout_of(model)
    assert layout.num_layers == NUM_LAYERS
    counts = {
        layer: sorted(p.component for p in layout.places.values() if p.layer == layer)
        for layer in range(NUM_LAYERS)
    }
    assert counts[0] == counts[1] == counts[2]
    assert set(counts[0]) == {"attention", "mlp", "norm"}
    outside = {p.component for p in layout.places.values() if p.layer is None}
    assert outside == {"embedding", "norm"} | (set() if layout.tied else {"head"})


def test_places_are_right(family, model):
    places = layout_of(model).places
    for name, place in EXPECTED[family].items():
        assert places[name] == place, name


def test_a_folder_is_read_without_its_weights(family, model, tmp_path):
    """Built on the meta device from config.json alone: the same layout, ties included."""
    FAMILIES[family].architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == []
    assert layout_of(hollow_model(tmp_path)) == layout_of(model)


def test_what_is_saved_is_what_has_a_place(model, tmp_path):
    """Also where disk has other names (GPT-NeoX's head) or another form (experts) than memory."""
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint("model", tmp_path, str(tmp_path))
    use_model_names(checkpoint, model)
    state = model.state_dict()
    assert set(checkpoint.tensors) == set(layout_of(model).places)
    for name in checkpoint.tensors:
        assert torch.equal(checkpoint.tensor(name), state[name])


def test_a_model_saved_without_its_head_has_the_same_places(tmp_path):
    """As the hub's GPT-2: no "transformer." before names, and masks that are no weights."""
    model = AutoModelForCausalLM.from_config(FAMILIES["GPT-2"])
    state = {n: t.contiguous() for n, t in model.transformer.state_dict().items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32) for layer in range(NUM_LAYERS)}
    save_file(state | masks, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint("model", tmp_path, str(tmp_path))
    use_model_names(checkpoint, model)
    assert set(checkpoint.tensors) == set(layout_of(model).places)
    for name in checkpoint.tensors:
        assert torch.equal(checkpoint.tensor(name), model.state_dict()[name])


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,), True),
        ("h.0.attn.bias", (1, 1, 32, 32), True),
        ("h.0.attn.masked_bias", (), True),
        ("gpt_neox.layers.0.attention.masked_bias", (), True),
        ("decoder.version", (1,), True),
        ("h.0.attn.bias", (32,), False),
        ("h.0.attn.c_attn.bias", (48,), False),
        ("model.layers.61.self_attn.q_proj.weight", (4, 4), False),
        ("model.visual.blocks.0.attn.proj.bias", (4,), False),
        ("mtp.norm.weight", (4,), False),
    ],
)
def test_what_a_model_computes_itself(name, shape, expected):
    assert is_computed(name, shape) == expected


def test_a_model_that_transformers_does_not_know_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nobody", "architectures": ["Nobody"]}')
    with pytest.raises(InputError, match="nobody"):
        hollow_model(tmp_path)


def test_remote_code_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "nobody", "auto_map": {"AutoConfig": "code.Config"}}'
    )
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(InputError):
        hollow_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_tied_tensors_share_memory(model):
    layout, state = layout_of(model), model.state_dict()
    for name in layout.tied:
        assert any(torch.equal(state[name], state[other]) for other in layout.places)
