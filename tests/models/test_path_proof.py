"""Layers of any family run in any order where a small model shows it, and not where it does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BambaConfig,
    DbrxConfig,
    DeepseekV3Config,
    FalconH1Config,
    Gemma4TextConfig,
    GPT2Config,
    GraniteMoeSharedConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
    YoutuConfig,
)

from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.models.path_proof import differs_itself, prove_paths
from evomerge.models.small import small_model
from evomerge.models.stack import stack
from evomerge.pool import Pool, PoolConfig, config_of_checkpoint, open_pool
from evomerge.pool.config_fields import fields_of_order
from evomerge.recipe import Hop, LayerPath, Recipe
from families import MEMBERS, VOCAB_SIZE
from fixtures import make_tokenizer
from residents import Resident, logits

CONVOLUTIONS = {"num_hidden_layers": 3, "layer_types": ["conv", "conv", "full_attention"]}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "a mixture of experts": MixtralConfig,
    "dense layers before mixtures": DeepseekV3Config,
    "convolutions among attention": partial(Lfm2Config, **CONVOLUTIONS),
    "a row for padding only where the model has one": YoutuConfig,
    "state spaces": MambaConfig,
    "state spaces with heads": partial(Mamba2Config, hidden_size=2048, num_heads=64, head_dim=64),
    "attention at layers of some numbers": partial(BambaConfig, attn_layer_indices=[9, 18, 27]),
    "attention and state spaces in one layer": FalconH1Config,
    "a table of positions": OPTConfig,
}


def make_pool(folder, config: PreTrainedConfig) -> Pool:
    """A base and two experts, small and random, of a class's own configuration."""
    for seed, name in enumerate(MEMBERS):
        model = small_model(config, seed)
        assert model is not None
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    experts = tuple(str(folder / name) for name in MEMBERS[1:])
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


def path_of(pool: Pool, order, **changes) -> Recipe:
    """Layers of this order, of the two experts in turn."""
    hops = tuple(Hop(model=MEMBERS[1 + n % 2], layer=layer) for n, layer in enumerate(order))
    path = LayerPath(outer="expert0", hops=hops, **changes)
    return Recipe(members=pool.members, dtype="float32", path=path)


@pytest.fixture(scope="module", params=CONFIGS)
def pool(request, tmp_path_factory) -> Pool:
    return make_pool(tmp_path_factory.mktemp("pool"), CONFIGS[request.param]())


def stacked(pool: Pool, recipe: Recipe) -> nn.Module:
    """The path written out: copies of the experts' layers."""
    resident = Resident(pool)
    models = {}
    for name in MEMBERS[1:]:
        hops = tuple(Hop(model=name, layer=n) for n in range(pool.layout.num_layers))
        own = Recipe(members=pool.members, dtype="float32", path=LayerPath(outer=name, hops=hops))
        resident.load(own)
        models[name] = copy.deepcopy(resident.model)
    outer = models[recipe.path.outer]
    prefix, _, last = pool.layout.layers.rpartition(".")
    layers = nn.ModuleList()
    for place, hop in enumerate(recipe.path.hops):
        layer = copy.deepcopy(list(models[hop.model].get_submodule(pool.layout.layers))[hop.layer])
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = place
        layers.append(layer)
    stack = copy.deepcopy(outer)
    setattr(stack.get_submodule(prefix), last, layers)
    order = [hop.layer for hop in recipe.path.hops]
    for name, value in fields_of_order(config_of_checkpoint(pool.base), order).items():
        setattr(stack.config, name, value)
    return stack


class TestFamilies:
    def test_paths_are_proven(self, pool):
        prove_paths(pool)

    @pytest.mark.parametrize("backwards", [False, True])
    def test_a_path_is_a_stack_of_copies(self, pool, backwards):
        order = list(range(pool.layout.num_layers))
        recipe = path_of(pool, order[::-1] if backwards else [0, *order, 0])
        resident = Resident(pool)
        resident.load(recipe)
        assert torch.equal(logits(resident.model), logits(stacked(pool, recipe)))

    def test_a_path_is_exported_and_comes_back(self, pool, tmp_path):
        """Swapped, where the class may make another kind of layer at a place; and repeated."""
        order = list(range(pool.layout.num_layers))
        resident = Resident(pool)
        for name, tried in {"back": order[::-1], "more": [*order, *order[1:]]}.items():
            recipe = path_of(pool, tried)
            export_checkpoint(pool, recipe, tmp_path / name, "")
            resident.load(recipe)
            again = load_path(pool, recipe, tmp_path / name)
            assert torch.equal(logits(again), logits(resident.model))


def load_path(pool: Pool, recipe: Recipe, folder):
    from transformers import AutoModelForCausalLM

    from evomerge.models.stack import path_class
    from evomerge.pool.from_transformers import model_in

    made = path_class(pool, recipe.path)
    model = AutoModelForCausalLM.from_pretrained(folder) if made is None else model_in(folder, made)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    # As the resident model's: torch multiplies in another order where a gradient is wanted.
    return model.eval().requires_grad_(requires_grad=False)


def test_other_kinds_of_layers_are_never_stored_as_plain_ones(tmp_path):
    """DeepSeek's first layers are dense, whatever is written into the others' places."""
    pool = make_pool(tmp_path / "pool", DeepseekV3Config())
    num_layers = pool.layout.num_layers
    order = list(range(num_layers))
    kept, moved = path_of(pool, order), path_of(pool, order[::-1])
    assert stack(pool, kept.path).is_plain
    assert not stack(pool, moved.path).is_plain
    export_checkpoint(pool, moved, tmp_path / "moved", "")
    config = json.loads((tmp_path / "moved/config.json").read_text())
    assert config["stored_layers"] == order[::-1]
    assert config["own_layers"] == {"num_hidden_layers": num_layers}
    plain = path_of(pool, order[::-1], stored="plain")
    with pytest.raises(InputError, match=r"hop 0 runs layer 3, and DeepseekV3ForCausalLM makes"):
        export_checkpoint(pool, plain, tmp_path / "plain", "")
    assert not (tmp_path / "plain").exists()


def test_stored_buffers_are_the_members_own(tmp_path):
    """Those of a router, say, which are no parameters."""
    pool = make_pool(tmp_path / "pool", DeepseekV3Config())
    name = next(n for n in pool.layout.places if n.endswith("e_score_correction_bias"))
    for seed, member in enumerate(MEMBERS):
        path = tmp_path / "pool" / member / "model.safetensors"
        state = load_file(path)
        stored = pool[member].tensors[name].stored_name
        state[stored] = torch.full_like(state[stored], 10.0 * seed)
        state[stored][seed] = 1000.0
        from safetensors.torch import save_file

        save_file(state, path, metadata={"format": "pt"})
    pool = open_pool(PoolConfig(base="base", experts=("expert0", "expert1")), tmp_path / "pool")
    recipe = path_of(pool, range(pool.layout.num_layers))
    resident = Resident(pool)
    resident.load(recipe)
    assert torch.equal(logits(resident.model), logits(stacked(pool, recipe)))
    layer = pool.layout.places[name].layer
    hop = recipe.path.hops[layer].model
    module = list(resident.model.get_submodule(pool.layout.layers))[layer]
    inner = name.partition(f"layers.{layer}.")[2]
    assert torch.equal(dict(module.named_buffers())[inner], pool[hop].tensor(name))


def test_layers_keep_what_the_class_gave_them_by_their_number(tmp_path):
    """GPT-2's scale of attention, by the layer's number: a plain checkpoint would change it."""
    pool = make_pool(tmp_path / "pool", GPT2Config(scale_attn_by_inverse_layer_idx=True))
    prove_paths(pool)
    recipe = path_of(pool, range(pool.layout.num_layers)[::-1])
    resident = Resident(pool)
    resident.load(recipe)
    assert torch.equal(logits(resident.model), logits(stacked(pool, recipe)))
    assert not stack(pool, recipe.path).is_plain
    export_checkpoint(pool, recipe, tmp_path / "out", "")
    again = load_path(pool, recipe, tmp_path / "out")
    assert torch.equal(logits(again), logits(resident.model))


class TestRefused:
    def test_what_differs_on_the_model_itself(self):
        """A layer that remembers what ran before it."""
        model = small_model(LlamaConfig(), 0)
        from evomerge.models.modeling_path import PathLayers

        own = list(model.model.layers)
        calls = []
        own[1].register_forward_pre_hook(lambda _, given: (given[0] * (1 + len(calls)), *given[1:]))
        own[0].register_forward_hook(lambda *_: calls.append(1))
        layers = PathLayers(own)
        model.model.layers = layers

        def follow(order):
            layers.follow([(own[n], 1.0) for n in order])

        reason = differs_itself(model, "model.layers", own, follow)
        assert reason is not None and "gives other logits" in reason


def test_what_is_said_of_layers_by_number_is_said_of_their_places():
    config = BambaConfig(num_hidden_layers=4, attn_layer_indices=[1, 3])
    found = fields_of_order(config, [3, 0, 1, 1, 2])
    assert found == {"num_hidden_layers": 5, "attn_layer_indices": [0, 2, 3]}
    llama = Llama4TextConfig(num_hidden_layers=4, interleave_moe_layer_step=1)
    assert fields_of_order(llama, [3, 0, 1, 1, 2])["moe_layers"] == [0, 1, 2, 3, 4]
    gemma = Gemma4TextConfig(num_hidden_layers=6)
    whole, turned = (fields_of_order(gemma, order) for order in (range(6), range(6)[::-1]))
    assert whole["per_layer_config"] == {"5": {"head_dim": 512}}
    assert turned["per_layer_config"] == {"0": {"head_dim": 512}}
    gemma.per_layer_config = turned["per_layer_config"]
    assert [layer.head_dim for layer in gemma.per_layer_config] == [512, *[256] * 5]


def test_small_models_are_of_the_same_kinds():
    attention = small_model(BambaConfig(attn_layer_indices=[9, 18, 27]), 0).config
    assert attention.layer_types == ["linear_attention"] * 2 + ["full_attention"] * 2
    # Without experts that all tokens share, it has none.
    assert small_model(GraniteMoeSharedConfig(), 0).config.shared_intermediate_size == 0
    mixtures = small_model(Llama4TextConfig(interleave_moe_layer_step=1), 0).config
    assert mixtures.moe_layers == list(range(mixtures.num_hidden_layers))
    config = Lfm2Config(**CONVOLUTIONS)
    small = small_model(config, 0)
    assert set(small.config.layer_types) == set(config.layer_types)
    assert small.config.vocab_size >= VOCAB_SIZE
    # Sizes may be in configurations of attention and MLP.
    heads = {"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 5e5}
    parts = DbrxConfig(d_model=6144, n_heads=48, attn_config=heads, ffn_config={"moe_top_k": 2})
    small = small_model(parts, 0).config
    assert (small.attn_config.kv_n_heads, small.ffn_config.ffn_hidden_size) == (2, 48)
    assert (small.ffn_config.hidden_size, small.ffn_config.moe_top_k) == (32, 2)


def test_small_models_have_a_row_for_padding_where_theirs_has_one():
    assert small_model(YoutuConfig(), 0).config.pad_token_id is None
    assert small_model(YoutuConfig(pad_token_id=5), 0).config.pad_token_id == 0
