"""Kinds of tensors: MLPs by other names, mixers, and what old runs call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import (
    Gemma3nTextConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    Lfm2MoeConfig,
    LlamaConfig,
    MambaConfig,
    NemotronHConfig,
    OPTConfig,
    PreTrainedConfig,
)

import evomerge
from evomerge.errors import InputError
from evomerge.methods.linear import LinearConfig
from evomerge.models.small import small_model
from evomerge.pool import Pool, PoolConfig, open_members, open_pool
from evomerge.recipe import Recipe, read_recipe
from evomerge.space import SPACES, recipes
from evomerge.space.config import ParameterSpaceConfig
from families import MEMBERS
from fixtures import make_config, make_tasks, make_tokenizer


def save(folder: Path, config: PreTrainedConfig) -> PoolConfig:
    for seed, name in enumerate(MEMBERS):
        model = small_model(config, seed)
        assert model is not None
        model.save_pretrained(folder / name)
    return PoolConfig(base="base", experts=("expert0", "expert1"))


def kinds_of(pool: Pool, *parts: str) -> set[str]:
    return {
        place.component
        for name, place in pool.layout.places.items()
        if place.layer is not None and any(part in name for part in parts)
    }


CONVOLUTIONS = {"num_hidden_layers": 3, "layer_types": ["conv", "conv", "full_attention"]}

CHANGES: dict[type[PreTrainedConfig], dict[str, Any]] = {
    Lfm2Config: CONVOLUTIONS,
    Lfm2MoeConfig: CONVOLUTIONS,
    GraniteMoeHybridConfig: {
        "num_hidden_layers": 3,
        "layer_types": ["mamba", "mamba", "attention"],
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "mamba_n_heads": 48,
        "mamba_d_head": 64,
    },
}

EXPECTED: dict[type[PreTrainedConfig], dict[str, str]] = {
    OPTConfig: {"fc1": "mlp", "fc2": "mlp", "self_attn.": "attention"},
    MambaConfig: {"mixer": "mixer", ".norm": "norm"},
    Lfm2Config: {".conv.": "mixer", "self_attn.q_proj": "attention", "feed_forward": "mlp"},
    Lfm2MoeConfig: {".conv.": "mixer", "self_attn.q_proj": "attention", "feed_forward": "mlp"},
    GraniteMoeHybridConfig: {"mamba.": "mixer", "block_sparse_moe": "mlp", "input_layer": "norm"},
    NemotronHConfig: {"mixer.A_log": "mixer", "mixer.q_proj": "attention", "mixer.up_proj": "mlp"},
    Gemma3nTextConfig: {
        "altup": "per_layer",
        "laurel": "per_layer",
        "per_layer_projection": "per_layer",
        "per_layer_input_norm": "norm",
    },
}


@pytest.mark.parametrize("config_class", EXPECTED)
def test_parts_by_other_names(config_class, tmp_path):
    changes = CHANGES.get(config_class, {})
    pool = open_pool(save(tmp_path, config_class(**changes)), tmp_path)
    for part, kind in EXPECTED[config_class].items():
        assert kinds_of(pool, part) == {kind}, part
    assert "other" not in kinds_of(pool, "")
    assert pool.schema_version == 2


def at_start(space) -> Recipe:
    return space.to_recipe([dimension.start for dimension in space.dimensions])


class TestOldRuns:
    """What was written by the first rules keeps its meaning and its hash."""

    def test_families_that_both_rules_read_alike_have_no_news(self, tmp_path):
        pool = open_pool(save(tmp_path, LlamaConfig()), tmp_path)
        assert pool.schema_version == 1
        assert pool.resolved().component_rules is None
        assert recipes.uniform(pool).schema_version == 1

    @pytest.fixture
    def config(self, tmp_path) -> PoolConfig:
        return save(tmp_path, OPTConfig())

    def test_a_run_goes_on_by_its_own(self, config, tmp_path):
        new = open_pool(config, tmp_path)
        assert new.resolved().component_rules == 2
        hashes = {checkpoint.name: checkpoint.sha256 for checkpoint in new}
        again = open_pool(new.resolved(), tmp_path, hashes)
        assert kinds_of(again, "fc1") == {"mlp"}
        # A run's own configuration from before the field was there.
        old = open_pool(config, tmp_path, hashes)
        assert kinds_of(old, "fc1") == {"other"}
        assert old.schema_version == 1
        assert kinds_of(
            open_pool(config.model_copy(update={"component_rules": 1}), tmp_path), "fc1"
        ) == {"other"}

    def test_a_recipe_is_built_by_its_own(self, config, tmp_path):
        first, second = (
            open_pool(config.model_copy(update={"component_rules": rules}), tmp_path)
            for rules in (1, 2)
        )
        space = ParameterSpaceConfig(method=LinearConfig(), components=True, groups="whole")
        made = {}
        for pool in (first, second):
            made[pool.schema_version] = at_start(SPACES.make(space, pool, None))
            path = tmp_path / f"{pool.schema_version}.yaml"
            path.write_text(made[pool.schema_version].to_yaml())
            recipe = read_recipe(path)
            assert recipe == made[pool.schema_version]
            assert open_members(recipe).schema_version == pool.schema_version
        assert made[1].sha256 != made[2].sha256
        for pool, other in ((first, made[2]), (second, made[1])):
            with pytest.raises(InputError, match=r"schema_version [\s\S]*component_rules"):
                pool.check_recipe(other)

    def test_a_recipe_without_kinds_is_at_home_in_both(self, config, tmp_path):
        first = open_pool(config.model_copy(update={"component_rules": 1}), tmp_path)
        second = open_pool(config, tmp_path)
        first.check_recipe(recipes.uniform(second))
        second.check_recipe(recipes.uniform(first))
        assert isinstance(recipes.uniform(first), Recipe)


def test_a_run_from_before_is_resumed_by_its_own_rules(tmp_path):
    """Its configuration has no word of them; its candidates are those of the first rules."""
    save(tmp_path / "pool", OPTConfig())
    for name in MEMBERS:
        make_tokenizer().save_pretrained(tmp_path / "pool" / name)
    make_tasks(tmp_path / "tasks")
    search = {"budget": {"candidates": 2}, "finalists": 1}
    space = {"kind": "parameter", "method": {"kind": "task_arithmetic"}, "components": True}
    changes = {"space": space, "search": search, "workers": {"kind": "inline"}}
    path = make_config(tmp_path, pool={"component_rules": 1}, **changes)
    run_dir = tmp_path / "run"
    result = evomerge.run(path, run_dir)
    written = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert written["pool"].get("component_rules") is None
    assert evomerge.resume(run_dir).best == result.best
    recipe = read_recipe(run_dir / "recipes" / f"{result.best}.yaml")
    assert recipe.schema_version == 1
