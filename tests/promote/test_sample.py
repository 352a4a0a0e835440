"""What models write beside each other is what each of them writes by itself."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands import run_here
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.promote.forms import write_low_rank
from evomerge.promote.sample import read_prompts, sample
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import REPRESENTATIVES, family_config, make_random_pool

PROMPTS = ["abc>", "hgf"]


@pytest.fixture(scope="module", params=REPRESENTATIVES)
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    pool = make_random_pool(folder, family_config(request.param))
    export_checkpoint(pool, recipes.uniform(pool), folder / "merge", "")
    hops = tuple(Hop(model=name, layer=layer) for name, layer in PATH)
    path = Recipe(members=pool.members, dtype=pool.dtype, path=LayerPath(outer="base", hops=hops))
    (folder / "path.yaml").write_text(path.to_yaml())
    export_checkpoint(pool, path, folder / "path", "")
    return folder


PATH = [("base", 0), ("expert0", 1), ("expert0", 2), ("base", 2), ("base", 3)]


def written_by(folder: Path, prompt: str, **options) -> str:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = torch.tensor([tokenizer.encode(prompt)])
    ids = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=False,
        max_new_tokens=6,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    return tokenizer.decode(ids[0, inputs.shape[1] :], skip_special_tokens=True)


def test_each_writes_what_it_writes_by_itself(folder):
    found = sample(folder / "merge", PROMPTS, max_tokens=6)
    names = ["base", "expert0", "expert1", "merge"]
    assert [(each.prompt, each.model) for each in found] == [(p, n) for p in PROMPTS for n in names]
    for each in found:
        assert each.text == written_by(folder / each.model, each.prompt), each
    assert len({each.text for each in found}) > 2


def test_a_path_writes_too(folder):
    *_, last = sample(folder / "path.yaml", PROMPTS[:1], max_tokens=6)
    assert last.model == "path"
    assert last.text == written_by(folder / "path", PROMPTS[0])


def test_a_folder_without_a_recipe_writes_alone(folder):
    (only,) = sample(folder / "expert0", PROMPTS[:1], max_tokens=6)
    assert only.model == "expert0" and only.text == written_by(folder / "expert0", PROMPTS[0])


def test_a_folder_writes_by_the_weights_that_lie_in_it(folder):
    if not (folder / "lora").exists():
        write_low_rank(folder / "merge", folder / "lora", 1, lambda _done, _of: None)
        # Other weights than the recipe's, in the form of a copy.
        shutil.copytree(folder / "expert1", folder / "copy")
        shutil.copy(folder / "merge/recipe.yaml", folder / "copy/recipe.yaml")
    *_, copy = sample(folder / "copy", PROMPTS[:1], max_tokens=6)
    assert copy.model == "copy" and copy.text == written_by(folder / "expert1", PROMPTS[0])
    *_, lora = sample(folder / "lora", PROMPTS[:1], max_tokens=6)
    assert lora.model == "lora" and lora.text == written_by_adapter(folder, PROMPTS[0])
    alone = folder / "alone"
    alone.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / "lora" / name, alone)
    with pytest.raises(InputError, match=r"a LoRA adapter without a recipe.yaml"):
        sample(alone, PROMPTS[:1])


def written_by_adapter(folder: Path, prompt: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
        model = PeftModel.from_pretrained(model, folder / "lora").merge_and_unload()
    model.save_pretrained(folder / "whole")
    shutil.copy(folder / "base/tokenizer.json", folder / "whole")
    shutil.copy(folder / "base/tokenizer_config.json", folder / "whole")
    return written_by(folder / "whole", prompt)


def test_prompts_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    for name, words in (("latin.txt", "is not UTF-8 text"), ("none.txt", "cannot read")):
        with pytest.raises(InputError, match=words):
            read_prompts(tmp_path / name)


def test_what_cannot_be_asked_is_refused(folder):
    for path, prompts, options, words in (
        ("merge", [], {}, "no prompts"),
        ("merge", [""], {}, "has no tokens"),
        ("none", ["a"], {}, "no recipe or model folder"),
        ("merge", ["a"], {"max_tokens": 0}, "--max-tokens"),
        ("merge", ["a"], {"is_chat": True}, "no chat template"),
        ("merge", ["a" * 50], {"max_tokens": 10_000}, "more than the model's .* places"),
    ):
        with pytest.raises(InputError, match=words):
            sample(folder / path, prompts, **options)


def test_the_command_prints_them_by_prompt(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("abc>\n\nhgf\n")
    options = ("--prompts", "prompts.txt", "--max-tokens", "2")
    done = run_here("sample", folder / "merge", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nprompt ") == 2 and done.stdout.count("\n  merge: ") == 2
