"""How a path is stored, and what mergekit is told of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import yaml

from adapters import save_adapter
from evomerge.errors import InputError
from evomerge.mergekit import mergekit_yaml
from evomerge.models import export_checkpoint
from evomerge.models.export import MERGEKIT_FILE
from evomerge.models.stack import stack, stack_tensors
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import NUM_LAYERS, family_config, make_random_pool

Step = tuple[str, int, float]


def path_recipe(pool: Pool, outer: str, steps: Sequence[Step]) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    path = LayerPath(outer=outer, hops=hops)
    merge = recipes.task_arithmetic(pool, 0.4)
    parts = merge.parts if MERGED in path.models else ()
    return Recipe(members=pool.members, dtype=pool.dtype, parts=parts, path=path)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return make_random_pool(tmp_path_factory.mktemp("pool"), family_config("Llama"))


class TestStack:
    def stack(self, pool: Pool, *steps: Step):
        path = path_recipe(pool, "expert0", steps).path
        return stack(pool, path)

    def test_a_plain_path(self, pool):
        found = self.stack(pool, ("expert0", 1, 1.0), ("base", 1, 1.0))
        assert found.is_plain
        assert found.layers == (("expert0", 1), ("base", 1))
        assert (found.input_layers, found.input_scales) == ((0, 1), (1.0, 1.0))
        assert found.embedding_scale == 1.0

    def test_the_first_scale(self, pool):
        found = self.stack(pool, ("expert0", 1, 0.7), ("base", 1, 1.0))
        assert found.is_plain
        assert (found.embedding_scale, found.input_scales) == (0.7, (1.0, 1.0))

    def test_the_first_scale_where_there_is_code_anyway(self, pool):
        for other in (("expert0", 1, 1.0), ("base", 1, 0.9)):
            found = self.stack(pool, ("expert0", 1, 0.7), other)
            assert not found.is_plain
            assert found.embedding_scale == 1.0
            assert found.input_scales == (0.7, other[2])

    def test_the_first_scale_where_the_head_is_the_embedding(self, tmp_path):
        tied = make_random_pool(tmp_path, family_config("Llama", tie_word_embeddings=True))
        found = self.stack(tied, ("expert0", 1, 0.7), ("base", 1, 1.0))
        assert not found.is_plain
        assert (found.embedding_scale, found.input_scales) == (1.0, (0.7, 1.0))
        assert self.stack(tied, ("expert0", 1, 1.0), ("base", 1, 1.0)).is_plain


class TestMergekit:
    def yaml(self, pool: Pool, outer: str, *steps: Step) -> str | None:
        try:
            return mergekit_yaml(pool, path_recipe(pool, outer, steps))
        except InputError:
            return None

    def test_slices(self, pool):
        steps = [("expert0", 0), ("expert0", 1), ("expert1", 1), ("expert1", 2), ("expert1", 1)]
        steps += [("base", 2), ("expert0", 3), ("expert0", 3)]
        text = self.yaml(pool, "expert0", *((model, layer, 1.0) for model, layer in steps))
        slices = [("expert0", 0, 2), ("expert1", 1, 3), ("expert1", 1, 2), ("base", 2, 3)]
        slices += [("expert0", 3, 4), ("expert0", 3, 4)]
        assert yaml.safe_load(text) == {
            "merge_method": "passthrough",
            "base_model": str(pool.base.model_dir),
            "slices": [
                {"sources": [{"model": str(pool[model].model_dir), "layer_range": [begin, end]}]}
                for model, begin, end in slices
            ],
            "dtype": "float32",
            "out_dtype": "float32",
        }

    def test_a_whole_model(self, pool):
        text = self.yaml(pool, "expert1", *(("expert1", n, 1.0) for n in range(NUM_LAYERS)))
        (only,) = yaml.safe_load(text)["slices"]
        assert only["sources"][0]["layer_range"] == [0, NUM_LAYERS]

    def test_an_adapter(self, pool, tmp_path):
        base_dir = pool.base.model_dir
        folder = save_adapter(tmp_path / "lora", base_dir, r=2, target_modules=["q_proj"])
        adapted = open_pool(PoolConfig(base=str(base_dir), experts=[str(folder)]), tmp_path)
        recipe = path_recipe(adapted, "lora", (("lora", 0, 1.0), ("lora", 2, 1.0)))
        assert recipe.path is not None
        slices = yaml.safe_load(mergekit_yaml(adapted, recipe))["slices"]
        assert {one["sources"][0]["model"] for one in slices} == {f"{base_dir}+{folder}"}
        stored = dict(stack_tensors(adapted, recipe, None))
        name = "model.layers.{}.self_attn.q_proj.weight"
        assert torch.equal(stored[name.format(1)], adapted["lora"].tensor(name.format(2)))

    def test_what_it_has_no_words_for(self, pool):
        first, last = ("expert0", 0, 1.0), ("expert0", 3, 1.0)
        assert self.yaml(pool, "expert0", first, ("base", 1, 1.0), last) is not None
        assert self.yaml(pool, "expert0", first, ("base", 1, 1.1), last) is None
        assert self.yaml(pool, "expert0", first, (MERGED, 1, 1.0), last) is None
        assert self.yaml(pool, MERGED, (MERGED, 0, 1.0), first) is None

    def test_ends_of_another_model(self, pool):
        """Weights of one and zero say what slices alone cannot."""
        first, last = ("expert0", 0, 1.0), ("expert0", 3, 1.0)
        for outer, *steps in (
            ("base", first, ("base", 1, 1.0), last),
            ("expert0", ("base", 0, 1.0), last),
            ("expert0", first, ("base", 3, 1.0)),
        ):
            data = yaml.safe_load(self.yaml(pool, outer, *steps))
            assert data["merge_method"] == "linear"
            assert len(data["slices"]) == len(steps)

    def test_stands_beside_the_weights(self, pool, tmp_path):
        steps = [("expert0", 0, 1.0), ("base", 1, 1.0), ("expert0", 3, 1.0)]
        for name, scale in (("with", 1.0), ("without", 0.9)):
            recipe = path_recipe(pool, "expert0", [*steps[:2], ("expert0", 3, scale)])
            export_checkpoint(pool, recipe, tmp_path / name, "")
        text = self.yaml(pool, "expert0", *steps)
        assert (tmp_path / "with" / MERGEKIT_FILE).read_text() == text
        assert not (tmp_path / "without" / MERGEKIT_FILE).exists()
