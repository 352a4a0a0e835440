"""Where the tensors of a model in memory are, and what it tells of its layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evomerge.models.modeling_path import share
from evomerge.recipe import MERGED
from evomerge.space import recipes
from families import REPRESENTATIVES, reopen_pool
from residents import (
    MIXED_STEPS,
    OTHER_STEPS,
    STEPS,
    Resident,
    hops,
    logits,
    merged_recipe,
    path_recipe,
    some_ids,
)

of_representatives = pytest.mark.parametrize("family", REPRESENTATIVES, indirect=True)


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

    @of_representatives
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

    @of_representatives
    def test_a_members_tensors_are_the_files_map(self, family, resident):
        pool = family.pool
        prefix = pool.layout.layers
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

    @of_representatives
    def test_another_type_is_copied_once(self, family):
        pool = reopen_pool(family.folder, dtype="bfloat16")
        resident = Resident(pool)

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

    @of_representatives
    def test_hops_are_no_parameters_of_the_model(self, family, resident):
        """What counts, saves or moves parameters sees each stored layer once."""
        names = set(resident.model.state_dict())
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        assert set(resident.model.state_dict()) == names
        num_parameters = sum(p.numel() for p in resident.model.parameters())
        assert num_parameters == family.pool.layout.num_parameters

    @of_representatives
    def test_hops_of_the_merged_model_are_its_layers(self, family, resident):
        pool = family.pool
        own = {name: t.data_ptr() for name, t in resident.model.state_dict().items()}
        prefix = pool.layout.layers
        resident.load(path_recipe(pool, "expert1", MIXED_STEPS, merged_recipe(pool)))
        for (model, layer, _), module in zip(MIXED_STEPS, hops(resident), strict=True):
            for name, parameter in module.named_parameters():
                is_own = parameter.data_ptr() == own[f"{prefix}.{layer}.{name}"]
                assert is_own == (model == MERGED)


def modes(resident: Resident) -> set[bool]:
    return {inner.training for module in hops(resident) for inner in module.modules()}


class TestMode:
    @of_representatives
    def test_hops_follow_the_model(self, family, resident):
        resident.load(path_recipe(family.pool, "expert0", STEPS))
        assert modes(resident) == {False}
        resident.model.train()
        assert modes(resident) == {True}
        resident.model.eval()
        assert modes(resident) == {False}
        assert torch.equal(logits(resident.model), logits(resident.model))

    def test_dropout(self, gpt2_pool):
        resident = Resident(gpt2_pool)
        # Only dropout inside the hops can tell.
        resident.model.transformer.drop.p = 0.0
        resident.load(path_recipe(gpt2_pool, "expert0", STEPS))
        evaluating = logits(resident.model)
        resident.model.train()
        assert not torch.equal(logits(resident.model), logits(resident.model))
        resident.model.eval()
        assert torch.equal(logits(resident.model), evaluating)

    def test_hops_made_later(self, gpt2_pool):
        resident = Resident(gpt2_pool)
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 0, 1.0)]))
        resident.model.train()
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 1, 1.0)]))
        resident.model.eval()
        resident.load(path_recipe(gpt2_pool, "expert0", [("expert0", 1, 1.0)] * 2))
        assert modes(resident) == {False}


class TestOutputs:
    @torch.no_grad()
    def test_hidden_states_of_every_hop(self, gpt2_pool):
        resident = Resident(gpt2_pool)
        resident.load(path_recipe(gpt2_pool, "expert0", STEPS))
        hidden = resident.model(some_ids(), output_hidden_states=True).hidden_states
        assert len(hidden) == len(STEPS) + 1
