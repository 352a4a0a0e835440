"""Every family: pools open, merge as loaded models do, and are exported to load again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.methods.linear import LinearConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.models.export import export_checkpoint
from evomerge.models.weights import stored_weights_sha256, weights_sha256
from evomerge.pool import Pool, families
from evomerge.pool.families import KNOWN
from evomerge.recipe import Part, Recipe
from evomerge.space import recipes
from families import MEMBERS, reopen_pool
from residents import Resident

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
GROUPED = {**SMALL, "num_key_value_heads": 1}
HEADS = {**GROUPED, "head_dim": 8}
# More than ten, so that an order of names would not be the order of numbers.
MIXTRAL = MixtralConfig(**HEADS, num_local_experts=11, num_experts_per_tok=2)
FAMILIES: dict[str, PreTrainedConfig] = {
    "Llama": LlamaConfig(**GROUPED, tie_word_embeddings=False),
    "Mistral": MistralConfig(**GROUPED, tie_word_embeddings=False),
    "Qwen2": Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "Qwen3": Qwen3Config(**HEADS, tie_word_embeddings=True),
    "Gemma2": Gemma2Config(**HEADS),
    "Gemma3": Gemma3TextConfig(**HEADS),
    "Phi-3": Phi3Config(**GROUPED, tie_word_embeddings=False),
    "OLMo-2": Olmo2Config(**GROUPED, tie_word_embeddings=False),
    "GPT-2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "GPT-NeoX": GPTNeoXConfig(**SMALL, tie_word_embeddings=False),
    "Mixtral": MIXTRAL,
    # The first layer is dense.
    "Qwen3-MoE": Qwen3MoeConfig(
        **HEADS,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        mlp_only_layers=[0],
        tie_word_embeddings=False,
    ),
}
TIED = {"Qwen2", "Qwen3", "Gemma2", "Gemma3", "GPT-2"}
MIXTURES = ("Mixtral", "Qwen3-MoE")
FILE = "model.safetensors"
WEIGHTS = {"expert0": 0.3, "expert1": 0.9}


def save_members(folder: Path, config: PreTrainedConfig) -> Path:
    for seed, name in enumerate(MEMBERS):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(folder / name)
    return folder


def states(folder: Path) -> list[dict[str, Tensor]]:
    """What transformers loads."""
    return [AutoModelForCausalLM.from_pretrained(folder / n).state_dict() for n in MEMBERS]


def recipe_of(pool: Pool, method, **parameters) -> Recipe:
    part = Part(method=method, models=tuple(WEIGHTS), parameters={"weight": WEIGHTS, **parameters})
    return Recipe(members=pool.members, dtype=pool.dtype, parts=(part,))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(edit(load_file(folder / FILE)), folder / FILE, metadata={"format": "pt"})


def fuse(folder: Path) -> None:
    """Store a model as it is in memory."""
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    save_file({n: t.clone() for n, t in state.items()}, folder / FILE, metadata={"format": "pt"})


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> SimpleNamespace:
    folder = save_members(tmp_path_factory.mktemp("pool"), FAMILIES[request.param])
    return SimpleNamespace(
        name=request.param, folder=folder, pool=reopen_pool(folder), states=states(folder)
    )


@pytest.fixture
def mixtures(tmp_path) -> Path:
    return save_members(tmp_path, MIXTRAL)


def assert_merged(pool: Pool, loaded: list[dict[str, Tensor]]) -> None:
    """Linear and task arithmetic against a plain merge of what transformers loaded."""
    base, first, second = loaded
    engine = Engine(pool)
    linear = dict(engine.tensors(recipe_of(pool, LinearConfig())))
    arithmetic = dict(engine.tensors(recipe_of(pool, TaskArithmeticConfig(), scale=0.7)))
    assert linear.keys() == arithmetic.keys() == base.keys() - pool.layout.tied
    for name in linear:
        torch.testing.assert_close(
            linear[name], (0.3 * first[name] + 0.9 * second[name]) / 1.2, rtol=1e-5, atol=1e-6
        )
        taus = 0.3 * (first[name] - base[name]) + 0.9 * (second[name] - base[name])
        torch.testing.assert_close(arithmetic[name], base[name] + 0.7 * taus, rtol=1e-5, atol=1e-6)


def assert_exported(pool: Pool, recipe: Recipe, out_dir: Path) -> None:
    """The checkpoint has the base's names and forms, loads whole and is what was built."""
    export_checkpoint(pool, recipe, out_dir, "card")
    stored = load_file(pool.base.model_dir / FILE)
    exported = load_file(out_dir / FILE)
    tied = {name for name in stored if name in pool.layout.tied}
    assert {n: t.shape for n, t in exported.items()} == {
        n: t.shape for n, t in stored.items() if n not in tied
    }
    model, info = AutoModelForCausalLM.from_pretrained(out_dir, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    built = dict(Engine(pool).tensors(recipe))
    loaded = model.state_dict()
    assert loaded.keys() - pool.layout.tied == built.keys()
    for name, tensor in built.items():
        assert torch.equal(loaded[name], tensor), name
    resident = Resident(pool)
    resident.load(recipe)
    assert weights_sha256(resident.tensors(recipe)) == stored_weights_sha256(out_dir)
    # transformers uses a file's map where it lies, at any address; sums are rounded by alignment.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, resident.model(ids).logits)


class TestFamily:
    def test_is_known_and_tied_as_it_says(self, family):
        layout = family.pool.layout
        assert family.pool.base.config["model_type"] in KNOWN
        assert layout.num_layers == 2
        assert (layout.tied == {"lm_head.weight"}) == (family.name in TIED)
        inside = {p.component for p in layout.places.values() if p.layer is not None}
        outside = {p.component for p in layout.places.values() if p.layer is None}
        assert inside == {"attention", "mlp", "norm"}
        assert outside == {"embedding", "norm"} | ({"head"} if family.name not in TIED else set())

    def test_members_are_read_as_transformers_reads_them(self, family):
        for checkpoint, state in zip(family.pool, family.states, strict=True):
            for name in family.pool.layout.places:
                assert torch.equal(checkpoint.tensor(name), state[name]), name

    def test_is_merged_as_loaded_models_are(self, family):
        assert_merged(family.pool, family.states)

    def test_is_exported_whole(self, family, tmp_path):
        assert_exported(family.pool, recipe_of(family.pool, LinearConfig()), tmp_path / "out")

    def test_a_tied_head_stays_tied_and_no_other_becomes_so(self, family, tmp_path):
        export_checkpoint(family.pool, recipes.uniform(family.pool), tmp_path / "out", "card")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert (head.weight is embedding.weight) == (family.name in TIED)
        if family.name in TIED:
            assert "lm_head.weight" not in load_file(tmp_path / "out" / FILE)

    def test_every_tensor_of_a_member_is_needed(self, family, tmp_path):
        """One that is missing, or is no tensor of the model, stops the opening with its name."""
        folder = tmp_path / "pool"
        for name in MEMBERS:
            (folder / name).mkdir(parents=True)
            for path in (family.folder / name).iterdir():
                (folder / name / path.name).write_bytes(path.read_bytes())
        stored = {info.stored_name: name for name, info in family.pool.base.tensors.items()}
        lost = max(name for name in stored if "mlp" in name or "moe" in name)
        change(folder / "base", lambda state: {n: t for n, t in state.items() if n != lost})
        with pytest.raises(InputError, match=f"model 'base' has no tensor '{stored[lost]}'"):
            reopen_pool(folder)
        (folder / "base" / FILE).write_bytes((family.folder / "base" / FILE).read_bytes())
        change(folder / "expert1", lambda state: state | {"model.stranger.weight": torch.ones(2)})
        with pytest.raises(InputError, match=r"model 'expert1'.*stranger"):
            reopen_pool(folder)


@pytest.mark.parametrize("name", MIXTURES)
class TestMixture:
    def test_fused_members_are_merged_alike(self, name, tmp_path):
        folder = save_members(tmp_path / "pool", FAMILIES[name])
        pool = reopen_pool(folder)
        expected = dict(Engine(pool).tensors(recipes.uniform(pool)))
        fuse(folder / "expert1")
        mixed = reopen_pool(folder)
        assert not mixed["expert1"].conversions
        assert mixed["expert0"].conversions
        for tensor_name, tensor in Engine(mixed).tensors(recipes.uniform(mixed)):
            assert torch.equal(tensor, expected[tensor_name])

    def test_a_fused_base_is_exported_fused(self, name, tmp_path):
        folder = save_members(tmp_path / "pool", FAMILIES[name])
        fuse(folder / "base")
        pool = reopen_pool(folder)
        assert_merged(pool, states(folder))
        assert_exported(pool, recipe_of(pool, LinearConfig()), tmp_path / "out")

    def test_shards_split_experts(self, name, tmp_path):
        """Experts of one layer in several files, and all of them hashed."""
        folder = save_members(tmp_path / "pool", FAMILIES[name])
        model = AutoModelForCausalLM.from_pretrained(folder / "expert0")
        (folder / "expert0" / FILE).unlink()
        model.save_pretrained(folder / "expert0", max_shard_size="4KB")
        pool = reopen_pool(folder)
        assert set(pool["expert0"].files) == set((folder / "expert0").glob("*.safetensors"))
        assert_merged(pool, states(folder))

    def test_an_exported_mixture_can_be_a_member(self, name, tmp_path):
        folder = save_members(tmp_path / "pool", FAMILIES[name])
        pool = reopen_pool(folder)
        export_checkpoint(pool, recipes.member(pool, "expert1"), tmp_path / "out", "card")
        exported, original = (
            load_file(tmp_path / "out" / FILE),
            load_file(folder / "expert1" / FILE),
        )
        assert exported.keys() == original.keys()
        for tensor_name, tensor in original.items():
            assert torch.equal(exported[tensor_name], tensor)


class TestExperts:
    w2 = "model.layers.1.block_sparse_moe.experts.{}.w2.weight"

    def test_are_merged_by_their_number(self, mixtures):
        pool = reopen_pool(mixtures)
        first, second = (load_file(mixtures / name / FILE) for name in WEIGHTS)
        stored = dict(pool.base.as_stored(Engine(pool).tensors(recipes.uniform(pool))))
        for expert in range(11):
            name = self.w2.format(expert)
            torch.testing.assert_close(stored[name], (first[name] + second[name]) / 2)

    def test_one_that_is_missing_stops(self, mixtures):
        change(
            mixtures / "expert0", lambda s: {n: t for n, t in s.items() if n != self.w2.format(3)}
        )
        with pytest.raises(InputError, match=r"'expert0'.*experts\.0\.w2.*not all there"):
            reopen_pool(mixtures)

    def test_the_last_that_is_missing_stops(self, mixtures):
        lost = self.w2.format(10)
        change(mixtures / "expert0", lambda s: {n: t for n, t in s.items() if n != lost})
        with pytest.raises(
            InputError, match=r"'expert0'.*layers\.1\.mlp\.experts\.down_proj.*\[10"
        ):
            reopen_pool(mixtures)

    def test_half_of_one_that_is_missing_stops(self, mixtures):
        lost = "model.layers.0.block_sparse_moe.experts.4.w3.weight"
        change(mixtures / "base", lambda s: {n: t for n, t in s.items() if n != lost})
        with pytest.raises(InputError, match=r"'base'.*layers\.0.*cannot be converted"):
            reopen_pool(mixtures)

    def test_one_of_another_shape_stops(self, mixtures):
        name = self.w2.format(5)
        change(mixtures / "expert1", lambda s: s | {name: s[name][:, :-1].contiguous()})
        with pytest.raises(InputError, match=r"'expert1'.*experts.*cannot be converted"):
            reopen_pool(mixtures)

    def test_both_forms_at_once_stop(self, mixtures):
        fused = {"model.layers.1.mlp.experts.down_proj": torch.zeros(11, 16, 12)}
        change(mixtures / "expert1", lambda state: state | fused)
        with pytest.raises(InputError, match=r"'expert1'.*are the same tensor"):
            reopen_pool(mixtures)

    def test_are_split_as_soon_as_they_are_whole(self, mixtures):
        """An export holds what is stored together, and no more."""
        pool = reopen_pool(mixtures)
        taken: list[str] = []

        def tensors():
            for name, tensor in Engine(pool).tensors(recipes.uniform(pool)):
                taken.append(name)
                yield name, tensor

        for stored_name, part in pool.base.as_stored(tensors()):
            experts = "experts" in stored_name
            assert ("experts" in taken[-1]) == experts
            assert part.untyped_storage().nbytes() == part.nbytes or not experts


class TestUnknown:
    @pytest.fixture(params=["falcon", "mamba"])
    def folder(self, request, tmp_path) -> Path:
        config = {
            "falcon": FalconConfig(
                vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
            ),
            "mamba": MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, state_size=4),
        }[request.param]
        return save_members(tmp_path, config)

    def test_works_and_says_once_what_was_checked(self, folder, caplog, monkeypatch):
        monkeypatch.setattr(families, "_said", set())
        with caplog.at_level(logging.WARNING, logger="evomerge"):
            pool = reopen_pool(folder)
            reopen_pool(folder)
        (record,) = caplog.records
        assert "every tensor was checked against transformers' class" in record.getMessage()
        assert "in 2 layers" in record.getMessage()
        assert "\n" not in record.getMessage()
        assert_merged(pool, states(folder))
        assert_exported(pool, recipe_of(pool, LinearConfig()), folder / "out")

    def test_a_known_one_is_no_news(self, family, caplog):
        with caplog.at_level(logging.WARNING, logger="evomerge"):
            reopen_pool(family.folder)
        assert not caplog.records

    def test_buffers_left_out_are_named(self, tmp_path, caplog):
        save_members(tmp_path, FAMILIES["Llama"])
        old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        change(tmp_path / "expert0", lambda state: state | old)
        with caplog.at_level(logging.WARNING, logger="evomerge"):
            pool = reopen_pool(tmp_path)
        (record,) = caplog.records
        assert "'expert0'" in record.getMessage()
        assert "layers.0.self_attn.rotary_emb.inv_freq" in record.getMessage()
        assert_merged(pool, states(tmp_path))
