"""Chat templates: read, built, written again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from evomerge.config import load_config
from evomerge.errors import CandidateError, InputError
from evomerge.mergekit import mergekit_yaml
from evomerge.mergekit.templates import TEMPLATES
from evomerge.models.chain import open_mergekit
from evomerge.models.export import write_companions
from evomerge.pool import Pool
from evomerge.recipe import Recipe, read_recipe
from evomerge.search.alone import score_model
from evomerge.search.setup import set_up
from evomerge.space.recipes import uniform
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker
from fixtures import make_config, make_tasks
from mergekit_configurations import CONFIGURATIONS
from mergekit_recipes import AVERAGE, RECIPES
from pools import open_at

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
OTHER = TEMPLATE.replace("[", "<").replace("]", ">")
MESSAGES = [{"role": "user", "content": "abc"}]


def put_template(model_dir: Path, template: object) -> None:
    """As programs before transformers 4.50 keep it."""
    path = model_dir / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


@pytest.fixture
def there(workspace, tmp_path, monkeypatch) -> Path:
    """A pool whose tokenizers a test may change; the process is beside it."""
    shutil.copytree(workspace / "pool", tmp_path / "pool")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: Path, name: str, template: str) -> tuple[Pool, Recipe]:
    path = folder / "mergekit.yaml"
    data = yaml.safe_load(CONFIGURATIONS[name]) | {"chat_template": template}
    path.write_text(yaml.safe_dump(data))
    return open_mergekit(path)


def chat_of(pool, recipe, folder: Path) -> str:
    folder.mkdir()
    write_companions(pool, recipe, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(MESSAGES, tokenize=False)


@pytest.mark.parametrize("has_file", [False, True])
def test_a_template_is_the_result_s(there, tmp_path, has_file):
    put_template(there / "pool/base", OTHER)
    if has_file:
        (there / "pool/base/chat_template.jinja").write_text(OTHER)
    pool, recipe = read(there, "ties", TEMPLATE)
    assert recipe.chat_template == TEMPLATE
    assert chat_of(pool, recipe, tmp_path / "out") == "[user] abc"
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert settings["chat_template"] == TEMPLATE
    assert read_recipe(tmp_path / "out/recipe.yaml") == recipe
    written = yaml.safe_load((tmp_path / "out/mergekit.yaml").read_text())
    assert written["chat_template"] == TEMPLATE
    silent = recipe.model_copy(update={"chat_template": None})
    assert chat_of(pool, silent, tmp_path / "silent") == "<user> abc"
    assert recipe.sha256 != silent.sha256


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ({}, None),
        ({"base": TEMPLATE}, None),
        ({"expert0": TEMPLATE}, TEMPLATE),
        ({"base": OTHER, "expert0": TEMPLATE}, None),
        ({"base": OTHER, "expert0": TEMPLATE, "expert1": f" {TEMPLATE}\n"}, TEMPLATE),
        ({"expert0": [{"name": "tool", "template": OTHER}]}, None),
        ({"expert0": [{"name": "default", "template": OTHER}]}, OTHER),
    ],
)
def test_auto_is_what_most_models_have(there, templates, expected):
    for name, template in templates.items():
        put_template(there / "pool" / name, template)
    assert read(there, "ties", "auto")[1].chat_template == expected


def test_an_adapter_has_its_model_s(there):
    put_template(there / "pool/base", TEMPLATE)
    put_template(there / "pool/expert0", OTHER)
    # The base, the base with the adapter, and the expert have a say.
    name = "task_arithmetic, an adapter and a whole model"
    assert read(there, name, "auto")[1].chat_template is None


def test_a_short_template_is_a_name_in_mergekit(workspace):
    pool = open_at(workspace / "pool")
    recipe = Recipe(members=pool.members, parts=(AVERAGE,), chat_template="{{ messages }}")
    with pytest.raises(InputError, match="for a name"):
        mergekit_yaml(pool, recipe)


def test_scores_by_another_template_are_refused(there):
    path = make_config(there, score={"apply_chat_template": True})
    make_tasks(there / "tasks")
    put_template(there / "pool/base", OTHER)
    (there / "recipe.yaml").write_text(read(there, "linear, adapters alone", TEMPLATE)[1].to_yaml())
    with pytest.raises(InputError, match="chat template of its own"):
        score_model("recipe.yaml", path, "search")
    # One that was enqueued is a failed candidate.
    setup = set_up(load_config(path, []), there)
    worker = MergeWorker(setup.worker_spec())
    blocks = tuple(enumerate(setup.blocks("search")))
    recipe = uniform(setup.pool)
    assert worker.evaluate(Job("c", recipe.to_json(), "search", blocks, len(blocks))).moments
    recipe = recipe.model_copy(update={"chat_template": TEMPLATE})
    with pytest.raises(CandidateError, match="chat template of its own"):
        worker.evaluate(Job("c", recipe.to_json(), "search", blocks, len(blocks)))


def test_without_a_base_model_the_base_s_template_is_written(there):
    pool = open_at(there / "pool")
    recipe = Recipe(members=pool.members, **RECIPES["nuslerp"])
    assert "chat_template" not in yaml.safe_load(mergekit_yaml(pool, recipe))
    put_template(there / "pool/expert0", OTHER)
    with pytest.raises(InputError, match="the first model's chat template, and the base has none"):
        mergekit_yaml(pool, recipe)
    put_template(there / "pool/base", TEMPLATE)
    assert yaml.safe_load(mergekit_yaml(pool, recipe))["chat_template"] == TEMPLATE


TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Bye"},
]

WRITTEN = {
    "chatml": "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "alpaca": "Be short.\n\n### Instruction:\nHello\n\n### Response:\nHi</s>\n\n"
    "### Instruction:\nBye\n\n### Response:\n",
    "mistral": "<s>[INST] Be short.\n\nHello [/INST] Hi</s>[INST] Bye [/INST]",
    "exaone": "[|system|]Be short.[|endofturn|]\n[|user|]Hello\n[|assistant|]Hi[|endofturn|]\n"
    "[|user|]Bye\n[|assistant|]",
}


def test_a_talk_in_exaones_format_begins_with_a_system_message():
    text = render_jinja_template(
        conversations=[TALK[1:2]], chat_template=TEMPLATES["exaone"], add_generation_prompt=True
    )[0][0]
    assert text == "[|system|][|endofturn|]\n[|user|]Hello\n[|assistant|]"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_has_a_name(here, tmp_path, name):
    """As transformers fills it in."""
    path = tmp_path / "config.yaml"
    path.write_text(f"{CONFIGURATIONS['linear']}chat_template: {name}\n")
    _, recipe = open_mergekit(path)
    text = render_jinja_template(
        conversations=[TALK],
        chat_template=recipe.chat_template,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )[0][0]
    assert text == WRITTEN[name]
