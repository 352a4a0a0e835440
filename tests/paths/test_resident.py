"""A model in memory is each recipe's own: paths as stacks of copied layers, merges as merges."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from families import (
    FAMILIES,
    MEMBERS,
    NUM_LAYERS,
    SLIDING_WINDOW,
    VOCAB_SIZE,
    family_config,
    make_random_pool,
    reopen_pool,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, OlmoConfig, PhiConfig, PreTrainedModel

from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_file
from evomerge.merge import Engine
from evomerge.paths.modeling_path import share
from evomerge.paths.resident import ResidentModel
from evomerge.pool import Pool, layers_name
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import recipes

Step = tuple[str, int, float]

# Repeats near and far, of one layer with two scales, layers out of order, other members' layers.
STEPS: tuple[Step, ...] = (
    ("expert0", 0, 1.0),
    ("expert1", 1, 1.0),
    ("expert1", 1, 0.8),
    ("expert1", 3, 1.0),
    ("expert0", 2, 1.1),
    ("expert0", 0, 1.0),
    ("base", 3, 1.25),
    ("expert0", 0, 0.9),
    ("expert0", 3, 1.0),
)
OTHER_STEPS: tuple[Step, ...] = (
    ("base", 2, 1.0),
    ("expert1", 1, 0.7),
    ("base", 2, 0.5),
    ("expert0", 0, 1.0),
)
MIXED_STEPS: tuple[Step, ...] = (
    (MERGED, 0, 1.0),
    ("expert0", 1, 0.9),
    (MERGED, 3, 1.0),
    (MERGED, 0, 1.2),
    ("expert0", 1, 1.0),
    (MERGED, 2, 1.0),
)


@dataclass(frozen=True)
class Family:
    """A family's pool, and its models as transformers loads them."""

    folder: Path
    pool: Pool
    loaded: dict[str, PreTrainedModel]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> Family:
    folder = tmp_path_factory.mktemp("pool")
    pool = make_random_pool(folder, family_config(request.param))
    return Family(folder, pool, {name: load(folder / name) for name in MEMBERS})


@pytest.fixture
def resident(family) -> ResidentModel:
    return new_resident(family.pool)


@pytest.fixture(scope="module")
def gpt2_pool(tmp_path_factory) -> Pool:
    """The family with dropout."""
    return make_random_pool(tmp_path_factory.mktemp("gpt2"), family_config("GPT-2"))


def load(model_dir: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).eval()


def new_resident(pool: Pool) -> ResidentModel:
    return ResidentModel(pool, torch.device("cpu"))


def path_recipe(
    pool: Pool, outer: str, steps: Sequence[Step], merge: Recipe | None = None
) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    return Recipe(
        members=pool.members,
        dtype=pool.dtype,
        parts=merge.parts if merge is not None else (),
        path=LayerPath(outer=outer, hops=hops),
    )


def identity(pool: Pool, name: str) -> Recipe:
    return path_recipe(pool, name, [(name, layer, 1.0) for layer in range(NUM_LAYERS)])


def merged_recipe(pool: Pool) -> Recipe:
    return recipes.task_arithmetic(pool, 0.4)


def some_ids(num_texts: int = 2, length: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, VOCAB_SIZE, (num_texts, length), generator=generator)


def padded() -> dict[str, Tensor]:
    """Texts of unlike lengths, filled up on the left as for generation."""
    ids = some_ids(3, 12)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    mask[2, :1] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    return model(**(inputs or {"input_ids": some_ids()})).logits


@torch.no_grad()
def write(model: PreTrainedModel, num_tokens: int, use_cache: bool, **inputs: Tensor) -> Tensor:
    inputs = inputs or {"input_ids": some_ids()}
    return model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False, use_cache=use_cache)


class ScaledLayer(nn.Module):
    """A layer and the factor of its input; else it looks as the layer does."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale = scale

    def forward(self, hidden: Tensor, *arguments, **keywords):
        return self.layer(hidden * self.scale, *arguments, **keywords)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


def copied_stack(
    models: dict[str, PreTrainedModel], outer: str, steps: Sequence[Step]
) -> PreTrainedModel:
    """The path written out: an ordinary model with a copy of a layer at every hop."""
    model = copy.deepcopy(models[outer])
    name = "h" if model.config.model_type == "gpt2" else "layers"
    stack = nn.ModuleList()
    for position, (member, number, scale) in enumerate(steps):
        layer = copy.deepcopy(getattr(models[member].base_model, name)[number])
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
        stack.append(ScaledLayer(layer, scale))
    setattr(model.base_model, name, stack)
    types = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(steps)
    if types is not None:
        model.config.layer_types = [types[number] for _, number, _ in steps]
    return model.eval()


def merged_model(family: Family, recipe: Recipe) -> PreTrainedModel:
    """An ordinary model with the engine's tensors."""
    model = copy.deepcopy(family.loaded["base"])
    result = model.load_state_dict(dict(Engine(family.pool).tensors(recipe)), strict=False)
    assert set(result.missing_keys) == family.pool.layout.tied
    assert not result.unexpected_keys
    return model


def hops(resident: ResidentModel) -> list[nn.Module]:
    base = resident.pool.base
    return list(resident.model.get_submodule(layers_name(base.config, base.model_dir)))


class TestForward:
    def test_the_identity_path_is_the_member(self, family, resident):
        outputs = []
        for name in ("expert0", "base", "expert1"):
            resident.load(identity(family.pool, name))
            assert torch.equal(logits(resident.model), logits(family.loaded[name]))
            ours = logits(resident.model, **padded())
            assert torch.equal(ours, logits(family.loaded[name], **padded()))
            outputs.append(logits(resident.model))
        assert not torch.allclose(outputs[0], outputs[1], atol=0.1)
        assert not torch.allclose(outputs[0], outputs[2], atol=0.1)

    @pytest.mark.parametrize("outer", ["base", "expert0"])
    def test_a_path_is_a_stack_of_copied_layers(self, outer, family, resident):
        resident.load(path_recipe(family.pool, outer, STEPS))
        stack = copied_stack(family.loaded, outer, STEPS)
        assert torch.equal(logits(resident.model), logits(stack))
        assert torch.equal(logits(resident.model, **padded()), logits(stack, **padded()))

    def test_every_hop_tells(self, family, resident):
        """No stack with one other layer or one other scale has these logits."""
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        ours = logits(resident.model)
        for position, (model, layer, scale) in enumerate(STEPS):
            other = (model, layer, scale + 0.2) if position % 2 else (model, 3 - layer, scale)
            steps = (*STEPS[:position], other, *STEPS[position + 1 :])
            stack = copied_stack(family.loaded, "expert0", steps)
            assert not torch.allclose(ours, logits(stack), atol=1e-3), position

    @pytest.mark.parametrize("layer", range(NUM_LAYERS))
    def test_a_path_can_be_one_layer(self, layer, family, resident):
        steps = [("expert1", layer, 1.5)]
        resident.load(path_recipe(family.pool, "expert0", steps))
        assert torch.equal(
            logits(resident.model), logits(copied_stack(family.loaded, "expert0", steps))
        )

    def test_a_path_through_the_merged_model(self, family, resident):
        merge = merged_recipe(family.pool)
        models = family.loaded | {MERGED: merged_model(family, merge)}
        for outer in (MERGED, "expert1"):
            resident.load(path_recipe(family.pool, outer, MIXED_STEPS, merge))
            stack = copied_stack(models, outer, MIXED_STEPS)
            assert torch.equal(logits(resident.model), logits(stack))
            assert torch.equal(logits(resident.model, **padded()), logits(stack, **padded()))

    def test_another_type_than_the_files(self, family):
        """Rounded once, as transformers does when it loads a checkpoint in this type."""
        pool = reopen_pool(family.folder, dtype="bfloat16")
        resident = new_resident(pool)
        loaded = {name: load(family.folder / name, torch.bfloat16) for name in MEMBERS}
        resident.load(identity(pool, "expert0"))
        assert torch.equal(logits(resident.model), logits(loaded["expert0"]))
        resident.load(path_recipe(pool, "expert1", STEPS))
        ours = logits(resident.model)
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, logits(copied_stack(loaded, "expert1", STEPS)))


class TestGeneration:
    NUM_TOKENS = 2 * SLIDING_WINDOW

    def test_with_the_cache_as_without(self, family, resident):
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        stack = copied_stack(family.loaded, "expert0", STEPS)
        for inputs in ({"input_ids": some_ids()}, padded()):
            ours = write(resident.model, self.NUM_TOKENS, True, **inputs)
            assert ours.shape[1] == inputs["input_ids"].shape[1] + self.NUM_TOKENS
            assert torch.equal(ours, write(resident.model, self.NUM_TOKENS, False, **inputs))
            assert torch.equal(ours, write(stack, self.NUM_TOKENS, True, **inputs))

    @torch.no_grad()
    def test_logits_token_by_token(self, family, resident):
        """Token for token says little where a model repeats itself."""
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        ids = some_ids(2, 14)
        whole = logits(resident.model, input_ids=ids)
        cache, steps = None, []
        for position in range(ids.shape[1]):
            out = resident.model(
                ids[:, position : position + 1], past_key_values=cache, use_cache=True
            )
            cache = out.past_key_values
            steps.append(out.logits)
        assert len(cache.layers) == len(STEPS)
        # Sums of other lengths in another order: float32's last bits through nine layers.
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-4)

    def test_the_cache_follows_from_path_to_path(self, family, resident):
        for steps in (STEPS, OTHER_STEPS, STEPS[:1]):
            resident.load(path_recipe(family.pool, "expert1", steps))
            ours = write(resident.model, 6, True)
            stack = copied_stack(family.loaded, "expert1", steps)
            assert torch.equal(ours, write(stack, 6, True))
        resident.load(recipes.member(family.pool, "expert1"))
        assert torch.equal(write(resident.model, 6, True), write(family.loaded["expert1"], 6, True))


class TestSwitching:
    def test_each_recipe_gives_its_bits_whatever_came_before(self, family, resident):
        pool, loaded = family.pool, family.loaded
        average, sum_ = recipes.uniform(pool), merged_recipe(pool)
        models = loaded | {MERGED: merged_model(family, sum_)}
        averages = loaded | {MERGED: merged_model(family, average)}
        cases = {
            "path": (
                path_recipe(pool, "expert0", STEPS),
                copied_stack(loaded, "expert0", STEPS),
            ),
            "average": (average, averages[MERGED]),
            "other path": (
                path_recipe(pool, "base", OTHER_STEPS),
                copied_stack(loaded, "base", OTHER_STEPS),
            ),
            "sum": (sum_, models[MERGED]),
            "path of sum": (
                path_recipe(pool, MERGED, MIXED_STEPS, sum_),
                copied_stack(models, MERGED, MIXED_STEPS),
            ),
            "path of average": (
                path_recipe(pool, MERGED, MIXED_STEPS, average),
                copied_stack(averages, MERGED, MIXED_STEPS),
            ),
            "member": (recipes.member(pool, "expert1"), loaded["expert1"]),
        }
        wanted = {name: logits(model) for name, (_, model) in cases.items()}
        names = [*cases, *reversed(cases), "path", "average", "other path", "path", "path of sum"]
        names += ["sum", "path", "path of sum", "member", "path", "member"]
        for name in names:
            resident.load(cases[name][0])
            assert torch.equal(logits(resident.model), wanted[name]), name

    def test_the_files_and_their_map_stay_as_they_are(self, family, resident):
        pool = family.pool
        before = {path: sha256_file(path) for path in sorted(family.folder.rglob("*.safetensors"))}
        assert len(before) == len(MEMBERS)
        # The outer model's embeddings lie in the map when the next candidate is written.
        for recipe in (
            path_recipe(pool, "expert0", STEPS),
            recipes.uniform(pool),
            path_recipe(pool, "expert1", MIXED_STEPS, merged_recipe(pool)),
            recipes.member(pool, "base"),
            identity(pool, "base"),
            merged_recipe(pool),
        ):
            resident.load(recipe)
            logits(resident.model)
        assert {path: sha256_file(path) for path in before} == before
        for checkpoint in pool:
            on_disk = load_file(checkpoint.files[0])
            for name, info in checkpoint.tensors.items():
                assert torch.equal(checkpoint.tensor(name), on_disk[info.stored_name]), name

    def test_what_is_loaded_is_not_made_again(self, family, resident):
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        modules = hops(resident)
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        assert all(a is b for a, b in zip(modules, hops(resident), strict=True))


class TestStorage:
    def test_what_is_loaded_into_a_layer_is_its_copys(self):
        """Also where loading puts other tensors in place, as for a model built without memory."""
        layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        copied = share(layer)
        layer.load_state_dict(
            {n: t.double() + 1 for n, t in layer.state_dict().items()}, assign=True
        )
        assert copied[0] is not layer[0]
        for name, tensor in copied.state_dict(keep_vars=True).items():
            assert tensor is layer.state_dict(keep_vars=True)[name]

    def test_layers_that_repeat_share_theirs(self, family, resident):
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        modules = hops(resident)
        assert len({id(module) for module in modules}) == len(STEPS)
        first: dict[tuple[str, int], list[int]] = {}
        for (model, layer, _), module in zip(STEPS, modules, strict=True):
            places = [parameter.data_ptr() for parameter in module.parameters()]
            assert places
            assert first.setdefault((model, layer), places) == places
        assert len({place for places in first.values() for place in places}) == sum(
            len(places) for places in first.values()
        )

    def test_a_members_tensors_are_the_files_map(self, family, resident):
        pool = family.pool
        prefix = layers_name(pool.base.config, pool.base.model_dir)
        resident.load(path_recipe(pool, "expert0", STEPS))
        for (model, layer, _), module in zip(STEPS, hops(resident), strict=True):
            for name, parameter in module.named_parameters():
                mapped = pool[model].tensor(f"{prefix}.{layer}.{name}")
                assert parameter.data_ptr() == mapped.data_ptr()
        state = resident.model.state_dict()
        outside = [name for name, place in pool.layout.places.items() if place.layer is None]
        for name in outside:
            assert state[name].data_ptr() == pool["expert0"].tensor(name).data_ptr()
        resident.load(recipes.uniform(pool))
        state = resident.model.state_dict()
        mapped_places = {c.tensor(name).data_ptr() for c in pool for name in pool.layout.places}
        assert not mapped_places & {tensor.data_ptr() for tensor in state.values()}

    def test_another_type_is_copied_once(self, family):
        pool = reopen_pool(family.folder, dtype="bfloat16")
        resident = new_resident(pool)

        def places() -> list[int]:
            tensors = [p for module in hops(resident) for p in module.parameters()]
            state = resident.model.state_dict()
            tensors += [state[n] for n, place in pool.layout.places.items() if place.layer is None]
            return [tensor.data_ptr() for tensor in tensors]

        resident.load(path_recipe(pool, "expert0", STEPS))
        before = places()
        resident.load(path_recipe(pool, "base", OTHER_STEPS))
        resident.load(recipes.uniform(pool))
        resident.load(path_recipe(pool, "expert0", STEPS))
        assert places() == before

    def test_hops_are_no_parameters_of_the_model(self, family, resident):
        """What counts, saves or moves parameters sees each stored layer once."""
        names = set(resident.model.state_dict())
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        assert set(resident.model.state_dict()) == names
        num_parameters = sum(p.numel() for p in resident.model.parameters())
        assert num_parameters == family.pool.layout.num_parameters

    def test_hops_of_the_merged_model_are_its_layers(self, family, resident):
        pool = family.pool
        own = {name: t.data_ptr() for name, t in resident.model.state_dict().items()}
        prefix = layers_name(pool.base.config, pool.base.model_dir)
        resident.load(path_recipe(pool, "expert1", MIXED_STEPS, merged_recipe(pool)))
        for (model, layer, _), module in zip(MIXED_STEPS, hops(resident), strict=True):
            for name, parameter in module.named_parameters():
                is_own = parameter.data_ptr() == own[f"{prefix}.{layer}.{name}"]
                assert is_own == (model == MERGED)


def modes(resident: ResidentModel) -> set[bool]:
    return {inner.training for module in hops(resident) for inner in module.modules()}


class TestMode:
    def test_hops_follow_the_model(self, family, resident):
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        assert modes(resident) == {False}
        resident.model.train()
        assert modes(resident) == {True}
        resident.model.eval()
        assert modes(resident) == {False}
        assert torch.equal(logits(resident.model), logits(resident.model))

    def test_dropout(self, gpt2_pool):
        resident = new_resident(gpt2_pool)
        # Only dropout inside the hops can tell.
        resident.model.transformer.drop.p = 0.0
        resident.load(path_recipe(gpt2_pool, "expert0", STEPS))
        evaluating = logits(resident.model)
        resident.model.train()
        assert not torch.equal(logits(resident.model), logits(resident.model))
        resident.model.eval()
        assert torch.equal(logits(resident.model), evaluating)

    def test_hops_made_later(self, gpt2_pool):
        resident = new_resident(gpt2_pool)
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 0, 1.0)]))
        resident.model.train()
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 1, 1.0)]))
        resident.model.eval()
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 1, 1.0)] * 2))
        assert modes(resident) == {False}


class TestOutputs:
    @torch.no_grad()
    def test_hidden_states_of_every_hop(self, gpt2_pool):
        resident = new_resident(gpt2_pool)
        resident.load(path_recipe(gpt2_pool, "expert0", STEPS))
        hidden = resident.model(some_ids(), output_hidden_states=True).hidden_states
        assert len(hidden) == len(STEPS) + 1


class TestRefusals:
    def test_a_hop_beyond_the_last_layer(self, family, resident):
        pool = family.pool
        good = path_recipe(pool, "expert0", STEPS)
        resident.load(good)
        wanted = logits(resident.model)
        bad = path_recipe(pool, "expert1", [("base", 0, 1.0), ("expert1", NUM_LAYERS, 1.0)])
        with pytest.raises(CandidateError, match="path: expert1 has no layer 4; valid: 0 to 3"):
            resident.load(bad)
        with pytest.raises(InputError, match=r"path\.hops\.1: .*'expert1'.*no layer 4.*0 to 3"):
            pool.check_recipe(bad)
        # The next candidate is not harmed.
        resident.load(good)
        assert torch.equal(logits(resident.model), wanted)

    @pytest.mark.parametrize("config_class", [PhiConfig, OlmoConfig])
    def test_a_family_that_is_not_tested(self, config_class, tmp_path):
        _, values = FAMILIES["Llama"]
        pool = make_random_pool(tmp_path, config_class(**values))
        self.refused(
            pool,
            f"{config_class.model_type!r} cannot be reordered; valid: llama, mistral, qwen2, "
            "qwen3, gemma2, gpt2, gpt_neox",
        )

    def test_layers_that_depend_on_their_place(self, tmp_path):
        config = family_config("GPT-2", scale_attn_by_inverse_layer_idx=True)
        self.refused(
            make_random_pool(tmp_path, config),
            "scale_attn_by_inverse_layer_idx makes a layer depend on its place",
        )

    def refused(self, pool: Pool, expected: str) -> None:
        recipe = identity(pool, "expert0")
        resident = new_resident(pool)
        for attempt in (resident.load, pool.check_recipe):
            with pytest.raises(InputError) as info:
                attempt(recipe)
            assert expected in str(info.value)
            assert str(pool.base.model_dir) in str(info.value)
        # Merging such models is another matter.
        resident.load(recipes.member(pool, "expert1"))
        assert torch.equal(logits(resident.model), logits(load(pool["expert1"].model_dir)))
