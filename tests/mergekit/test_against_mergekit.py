"""What mergekit itself makes of a configuration is what we make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MixtralConfig

from evomerge.mergekit import mergekit_yaml
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.models.from_recipe import build_recipe
from evomerge.models.small import small_model
from evomerge.models.stack import stack
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from fixtures import make_tokenizer, save_model
from mergekit_configurations import CONFIGURATIONS, make_named_pool
from mergekit_itself import NEEDED, TOLERANCE, assert_close, run_mergekit
from mergekit_recipes import RECIPES
from pools import open_at

pytestmark = NEEDED


def by_position(pool: Pool, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Our tensors, each layer as often as the path runs through it."""
    tensors = dict(recipe_tensors(pool, recipe))
    if recipe.path is None:
        return tensors
    result = {}
    for name, tensor in tensors.items():
        head, found, tail = name.partition(".layers.")
        layer, _, rest = tail.partition(".")
        if not found:
            result[name] = tensor
            continue
        for position, stored in enumerate(stack(pool, recipe.path).input_layers):
            if stored == int(layer):
                result[f"{head}.layers.{position}.{rest}"] = tensor
    return result


def tensors_of(config_path: Path, out_dir: Path) -> dict[str, torch.Tensor]:
    cache = ["--lora-merge-cache", str(out_dir.parent / "adapters")]
    run_mergekit(config_path, out_dir, "--no-copy-tokenizer", *cache)
    return load_file(out_dir / "model.safetensors")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_we_read(here, tmp_path, name):
    config_path = tmp_path / "config.yaml"
    config_path.write_text(CONFIGURATIONS[name] + "dtype: float32\n")
    theirs = tensors_of(config_path, tmp_path / "out")
    assert_close(by_position(*open_mergekit(config_path)), theirs)


@pytest.fixture(scope="module")
def in_16_bits(tmp_path_factory) -> Path:
    """Checkpoints in bfloat16: many elements of a task vector have the same magnitude."""
    return make_named_pool(tmp_path_factory.mktemp("bfloat16"), dtype="bfloat16")


# mergekit rounds a model with its adapter to the model's type before it merges; we do not.
WHOLE = [name for name in CONFIGURATIONS if "adapter" not in name]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", WHOLE)
def test_what_we_read_of_checkpoints_in_16_bits(in_16_bits, tmp_path, monkeypatch, name, dtype):
    """Within one rounding at the output type; arithmetic is float32."""
    monkeypatch.chdir(in_16_bits)
    config_path = tmp_path / "config.yaml"
    config_path.write_text(f"{CONFIGURATIONS[name]}dtype: float32\nout_dtype: {dtype}\n")
    theirs = tensors_of(config_path, tmp_path / "out")
    ours = by_position(*open_mergekit(config_path))
    if dtype == "float32":
        assert_close(ours, theirs)
        return
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == torch.bfloat16
        torch.testing.assert_close(tensor, theirs[name], rtol=2**-7, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("name", [n for n, fields in RECIPES.items() if "dtype" not in fields])
def test_what_we_write(workspace, tmp_path, name):
    if name == "masks":
        pytest.skip("mergekit draws its masks anew each time")
    pool = open_at(workspace / "pool")
    recipe = Recipe(members=pool.members, **RECIPES[name])
    config_path = tmp_path / "config.yaml"
    config_path.write_text(mergekit_yaml(pool, recipe))
    assert_close(by_position(pool, recipe), tensors_of(config_path, tmp_path / "out"))


MIXTURE = """
merge_method: slerp
base_model: expert0
slices:
  - sources:
      - {{model: expert0, layer_range: [1, 4]}}
      - {{model: expert1, layer_range: [1, 4]}}
    parameters: {{t: [{{filter: {part}, value: 0.9}}, {{value: 0.1}}]}}
dtype: float32
"""


@pytest.mark.parametrize("part", ["layers.1.mlp", "block_sparse_moe", "experts", "layers.2."])
def test_names_in_a_mixture(tmp_path, monkeypatch, part):
    """Its files name single experts, and mergekit what transformers has in memory."""
    for seed, name in enumerate(["expert0", "expert1"]):
        model = small_model(MixtralConfig(), seed)
        assert model is not None
        model.save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(MIXTURE.format(part=part))
    build_recipe(Path("config.yaml"), Path("ours"))
    run_mergekit(Path("config.yaml"), Path("theirs"))
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("ours", "theirs")
    )
    assert_close(ours, theirs)


@pytest.mark.parametrize("width", [1, 12])
def test_a_self_merge_of_eighty_layers(tmp_path, monkeypatch, width):
    """A plain Llama whose logits are those of mergekit's, bit for bit."""
    save_model(tmp_path / "model", 0, num_hidden_layers=80, dtype="bfloat16")
    starts = range(0, 80 - width, width)
    slices = [
        {"sources": [{"model": "model", "layer_range": [start, min(80, start + 2 * width)]}]}
        for start in starts
    ]
    data = {"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)
    build_recipe(Path("config.yaml"), Path("ours"))
    run_mergekit(Path("config.yaml"), Path("theirs"))
    ids = torch.tensor([[1, 5, 3, 7]])
    logits = {}
    for name in ("ours", "theirs"):
        model = AutoModelForCausalLM.from_pretrained(name)
        assert type(model) is LlamaForCausalLM
        assert model.config.num_hidden_layers == sum(
            min(80, start + 2 * width) - start for start in starts
        )
        with torch.no_grad():
            logits[name] = model(ids).logits
    assert torch.equal(logits["ours"], logits["theirs"])
