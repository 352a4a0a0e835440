"""A model in memory is each recipe's own: paths as stacks of copied layers, merges as merges."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_file
from evomerge.recipe import MERGED
from evomerge.space import recipes
from families import (
    MEMBERS,
    NUM_LAYERS,
    REPRESENTATIVES,
    SLIDING_WINDOW,
    family_config,
    make_random_pool,
    reopen_pool,
)
from residents import (
    MIXED_STEPS,
    OTHER_STEPS,
    STEPS,
    Resident,
    copied_stack,
    hops,
    identity,
    load,
    logits,
    merged_model,
    merged_recipe,
    padded,
    path_recipe,
    some_ids,
    write,
)

of_representatives = pytest.mark.parametrize("family", REPRESENTATIVES, indirect=True)


@pytest.fixture(scope="module")
def resident(family) -> Resident:
    """One for all tests of a family: what it was before is to make no difference."""
    return Resident(family.pool)


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
        stack = family.stack(outer, STEPS)
        assert torch.equal(logits(resident.model), logits(stack))
        assert torch.equal(logits(resident.model, **padded()), logits(stack, **padded()))

    @of_representatives
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
        resident = Resident(pool)
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
        stack = family.stack("expert0", STEPS)
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
            stack = family.stack("expert1", steps)
            assert torch.equal(ours, write(stack, 6, True))
        resident.load(recipes.member(family.pool, "expert1"))
        assert torch.equal(write(resident.model, 6, True), write(family.loaded["expert1"], 6, True))


@of_representatives
class TestSwitching:
    def test_each_recipe_gives_its_bits_whatever_came_before(self, family, resident):
        pool, loaded = family.pool, family.loaded
        average, sum_ = recipes.uniform(pool), merged_recipe(pool)
        models = loaded | {MERGED: merged_model(family, sum_)}
        averages = loaded | {MERGED: merged_model(family, average)}
        cases = {
            "path": (
                path_recipe(pool, "expert0", STEPS),
                family.stack("expert0", STEPS),
            ),
            "average": (average, averages[MERGED]),
            "other path": (
                path_recipe(pool, "base", OTHER_STEPS),
                family.stack("base", OTHER_STEPS),
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


class TestRefusals:
    @of_representatives
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

    def test_layers_that_know_what_ran_before(self, tmp_path):
        """They are found out on the model itself, whatever was tried before."""
        pool = make_random_pool(tmp_path, family_config("Llama"))
        resident = Resident(pool)
        first, second, *_ = resident.model.get_submodule(pool.layout.layers)
        calls = []
        first.register_forward_hook(lambda *_: calls.append(1))
        second.register_forward_pre_hook(lambda _, given: (given[0] * (1 + len(calls)), *given[1:]))
        with pytest.raises(InputError) as info:
            resident.load(identity(pool, "expert0"))
        assert "'llama' cannot be reordered" in str(info.value)
        assert "gives other logits than these layers" in str(info.value)
        assert str(pool.base.model_dir) in str(info.value)
