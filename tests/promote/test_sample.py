"""What models write beside each other is what each of them writes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands import run_here
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.promote.sample import sample
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


def test_what_cannot_be_asked_is_refused(folder):
    for path, prompts, options, words in (
        ("merge", [], {}, "no prompts"),
        ("merge", [""], {}, "has no tokens"),
        ("none", ["a"], {}, "no recipe or model folder"),
        ("merge", ["a"], {"max_tokens": 0}, "--max-tokens"),
        ("merge", ["a"], {"is_chat": True}, "no chat template"),
    ):
        with pytest.raises(InputError, match=words):
            sample(folder / path, prompts, **options)


def test_the_command_prints_them_by_prompt(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("abc>\n\nhgf\n")
    options = ("--prompts", "prompts.txt", "--max-tokens", "2")
    done = run_here("sample", folder / "merge", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nprompt ") == 2 and done.stdout.count("\n  merge: ") == 2
