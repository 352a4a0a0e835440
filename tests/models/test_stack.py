"""Exported paths load without this project, in every family, as the model that was scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evomerge.merge import Engine
from evomerge.models import export_checkpoint
from evomerge.models.stack import MODELING_FILE
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import FAMILIES, REPRESENTATIVES, VOCAB_SIZE, reopen_pool
from residents import Resident

Step = tuple[str, int, float]

# Repeats near and far, one layer with two scales, out of order, of members and of their merge.
WINDING: tuple[Step, ...] = (
    ("expert0", 0, 0.9),
    ("expert1", 1, 1.0),
    ("expert1", 1, 0.8),
    (MERGED, 2, 1.0),
    ("expert0", 0, 1.0),
    ("base", 3, 1.2),
    (MERGED, 2, 1.1),
    ("expert0", 3, 1.0),
)
# Deeper and shallower than the base; full and sliding attention at other depths than there.
SHALLOW: tuple[Step, ...] = (("expert0", 2, 1.0), ("base", 0, 1.0), ("expert1", 3, 1.0))
DEEP: tuple[Step, ...] = (
    ("expert1", 0, 1.3),
    (MERGED, 3, 1.0),
    ("expert0", 1, 1.0),
    ("expert1", 2, 1.0),
    (MERGED, 0, 1.0),
    ("base", 3, 1.0),
)
FOLDED = ("Llama", "Mistral", "Qwen2", "Qwen3", "GPT-NeoX")
"""Families of these pools whose first scale goes into the embedding."""

CASES: dict[str, tuple[str, tuple[Step, ...], str]] = {
    "winding": ("expert0", WINDING, "float32"),
    "shallow": ("expert1", SHALLOW, "float32"),
    "deep": (MERGED, DEEP, "float32"),
    "winding-bfloat16": (MERGED, WINDING, "bfloat16"),
    "deep-bfloat16": ("expert0", DEEP, "bfloat16"),
}
EXPORTED = [
    (family, case)
    for family in FAMILIES
    for case in CASES
    if family in REPRESENTATIVES or case == "winding" or (case == "deep" and family in FOLDED)
]
"""Every family with code of its own for the path, and without where there is none."""

NUM_TOKENS = 6
"""More than the window is long."""

# Runs where this project is not installed.
LOAD = """
import json, sys, torch
sys.modules["evomerge"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer

def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=custom)
    return model, {name: model(**given).logits for name, given in inputs.items()}

def write(model, use_cache):
    options = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "use_cache": use_cache}
    return {name: model.generate(**given, **options) for name, given in inputs.items()}

def equal(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)

def refusal(**options):
    try:
        return type(AutoModelForCausalLM.from_pretrained(folder, **options)).__name__
    except ValueError as error:
        return str(error)

results = {}
torch.set_grad_enabled(False)
for folder in sys.argv[1:]:
    reference = torch.load(folder + ".pt")
    inputs, custom = reference["inputs"], reference["custom"]
    model, logits = load(folder)
    hidden = model(**inputs["plain"], output_hidden_states=True).hidden_states
    results[folder] = found = {
        "class": type(model).__name__,
        "dtype": str(model.dtype),
        "logits": equal(logits, reference["logits"]),
        "cached": equal(write(model, True), reference["cached"]),
        "uncached": equal(write(model, False), reference["uncached"]),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_hidden": len(hidden),
        "tokens": AutoTokenizer.from_pretrained(folder, trust_remote_code=custom)("abc").input_ids,
    }
    if custom:
        found["refusals"] = [refusal(), refusal(trust_remote_code=False)]
    model.save_pretrained(folder + "-again")
    again, logits = load(folder + "-again")
    found["again"] = equal(logits, reference["logits"])
    found["again_cached"] = equal(write(again, True), reference["cached"])
# Standard output has the questions whether to trust the code, which nobody answered.
with open("results.json", "w") as file:
    json.dump(results, file)
"""


def path_recipe(pool: Pool, outer: str, steps: Sequence[Step]) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    path = LayerPath(outer=outer, hops=hops)
    merge = recipes.task_arithmetic(pool, 0.4)
    parts = merge.parts if MERGED in path.models else ()
    return Recipe(members=pool.members, dtype=pool.dtype, parts=parts, path=path)


def some_inputs() -> dict[str, dict[str, Tensor]]:
    """Texts of one length, and of unlike lengths that are filled up on the left."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCAB_SIZE, (3, 11), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    return {
        "plain": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "padded": {"input_ids": ids * mask, "attention_mask": mask},
    }


@torch.no_grad()
def reference(resident: Resident, recipe: Recipe) -> dict[str, dict[str, Tensor]]:
    """What the model that is scored gives."""
    resident.load(recipe)
    model, inputs = resident.model, some_inputs()

    def write(use_cache: bool) -> dict[str, Tensor]:
        options = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "use_cache": use_cache}
        return {name: model.generate(**given, **options) for name, given in inputs.items()}

    return {
        "inputs": inputs,
        "logits": {name: model(**given).logits for name, given in inputs.items()},
        "cached": write(True),
        "uncached": write(False),
    }


@dataclass(frozen=True)
class Exported:
    """A path's checkpoint, and what came of it in a process without this project."""

    family: str
    pool: Pool
    recipe: Recipe
    folder: Path
    expected: dict
    found: dict

    @property
    def steps(self) -> list[Step]:
        return [(hop.model, hop.layer, hop.scale) for hop in self.recipe.path.hops]

    @property
    def config(self) -> dict:
        return json.loads((self.folder / "config.json").read_text())

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "model.safetensors")


def is_custom(family: str, case: str) -> bool:
    return case.startswith("winding") or (case.startswith("deep") and family not in FOLDED)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, make_family) -> dict[tuple[str, str], Exported]:
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for family in FAMILIES:
        pools = {"float32": make_family(family).pool}
        cases = [case for of, case in EXPORTED if of == family]
        if any(CASES[case][2] == "bfloat16" for case in cases):
            pools["bfloat16"] = reopen_pool(make_family(family).folder, dtype="bfloat16")
        residents = {d: Resident(p) for d, p in pools.items()}
        for case in cases:
            outer, steps, dtype = CASES[case]
            out = folder / f"{family}-{case}"
            recipe = path_recipe(pools[dtype], outer, steps)
            expected = reference(residents[dtype], recipe)
            torch.save(expected | {"custom": is_custom(family, case)}, f"{out}.pt")
            export_checkpoint(pools[dtype], recipe, out, "# a card\n")
            made[family, case] = (family, pools[dtype], recipe, out, expected)
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            f"NUM_TOKENS = {NUM_TOKENS}\n{LOAD}",
            *(str(m[3]) for m in made.values()),
        ],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(folder / "modules"),
            "PYTHONPATH": "",
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads((folder / "results.json").read_text())
    return {key: Exported(*rest, found[str(rest[3])]) for key, rest in made.items()}


@pytest.mark.parametrize(("family", "case"), EXPORTED)
class TestEveryFamily:
    def test_is_the_model_that_was_scored(self, exported, family, case):
        model = exported[family, case]
        assert model.found["logits"]
        assert model.found["cached"]
        assert model.found["uncached"]
        dtype = CASES[case][2]
        assert model.found["dtype"] == f"torch.{dtype}"
        if dtype == "float32":
            cached, uncached = model.expected["cached"], model.expected["uncached"]
            assert all(torch.equal(cached[name], uncached[name]) for name in cached)
        lengths = {ids.shape[1] for ids in model.expected["cached"].values()}
        assert lengths == {11 + NUM_TOKENS}

    def test_it_can_be_saved_again(self, exported, family, case):
        model = exported[family, case]
        assert model.found["again"]
        assert model.found["again_cached"]
        again = Path(f"{model.folder}-again")
        assert (again / MODELING_FILE).exists() == is_custom(family, case)
        ours, theirs = model.tensors, load_file(again / "model.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_each_layer_is_stored_once(self, exported, family, case):
        model = exported[family, case]
        pool = model.pool
        prefix = pool.layout.layers
        tensors = model.tensors
        numbers = {
            int(name.removeprefix(f"{prefix}.").split(".")[0])
            for name in tensors
            if name.startswith(f"{prefix}.")
        }
        distinct = {(m, n) for m, n, _ in model.steps}
        assert numbers == set(range(len(distinct)))
        sizes = [tensor.numel() for tensor in tensors.values()]
        assert model.found["num_parameters"] == sum(sizes)
        # The hops are there all the same.
        assert model.found["num_hidden"] == len(model.steps) + 1

    def test_needs_code_only_where_it_must(self, exported, family, case):
        model = exported[family, case]
        base = model.pool.base.config
        custom = is_custom(family, case)
        depth = "n_layer" if family == "GPT-2" else "num_hidden_layers"
        assert model.config[depth] == len(model.steps)
        assert (model.folder / MODELING_FILE).exists() == custom
        assert model.found["class"] == ("PathForCausalLM" if custom else base["architectures"][0])
        if custom:
            hops = [(m, n) for m, n, _ in model.steps]
            stored = list(dict.fromkeys(hops))
            assert [stored[n] for n in model.config["input_layers"]] == hops
            assert model.config["input_scales"] == [scale for _, _, scale in model.steps]
        else:
            changed = {key for key in model.config if model.config[key] != base.get(key)}
            # Nothing but what other programs know; the type is another key in older releases.
            assert changed <= {depth, "layer_types", "dtype"}

    def test_the_tokenizer_is_there(self, exported, family, case):
        # <pad> and <eos> come before the letters.
        assert exported[family, case].found["tokens"] == [2, 3, 4]


@pytest.mark.parametrize(("family", "case"), [key for key in EXPORTED if is_custom(*key)])
def test_another_model_is_never_loaded_in_its_place(exported, family, case):
    """Who does not trust the code gets a refusal, not the layers in another order."""
    refusals = exported[family, case].found["refusals"]
    assert len(refusals) == 2
    for message in refusals:
        assert "trust_remote_code=True" in message


class TestTensors:
    @pytest.mark.parametrize(("family", "case"), EXPORTED)
    def test_are_the_models(self, exported, family, case):
        """Each stored tensor is the member's or the merge's, in the pool's type."""
        model = exported[family, case]
        pool = model.pool
        prefix = pool.layout.layers
        merge = model.recipe.merge
        merged = {} if merge is None else dict(Engine(pool).tensors(merge))
        dtype = getattr(torch, CASES[case][2])

        def tensor(owner: str, name: str) -> Tensor:
            return merged[name] if owner == MERGED else pool[owner].tensor(name).to(dtype)

        distinct = dict.fromkeys((m, n) for m, n, _ in model.steps)
        tensors = model.tensors
        for number, (owner, layer) in enumerate(distinct):
            for name, place in pool.layout.places.items():
                if place.layer == layer:
                    ours = tensors.pop(name.replace(f"{prefix}.{layer}.", f"{prefix}.{number}."))
                    assert torch.equal(ours, tensor(owner, name)), name
        folded = case.startswith("deep") and family in FOLDED
        for name, place in pool.layout.places.items():
            if place.layer is None:
                wanted = tensor(CASES[case][0], name)
                if folded and place.component == "embedding":
                    wanted = wanted * 1.3
                ours = tensors.pop(name)
                assert ours.dtype == dtype
                assert torch.equal(ours, wanted), name
        assert not tensors
