"""Everything that reads a file of a person's, each with good files to break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from evomerge.begin.rows import find_columns, read_rows
from evomerge.config import load_config, with_overrides
from evomerge.demo import CONFIG_PATH
from evomerge.journal.folder import INBOX_DIR, JOURNAL_FILE
from evomerge.journal.journal import read_journal
from evomerge.models.build import empty_model
from evomerge.models.chain import open_mergekit
from evomerge.pool import ModelConfig, Pool, PoolConfig, load_tokenizer, open_pool
from evomerge.recipe import Recipe, read_recipe
from evomerge.score.code import AllowedCode
from evomerge.score.load import check_known, load
from evomerge.search.inbox import read_inbox
from evomerge.search.run import Run, start_run
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.tokens import Vocabulary
from fuzz_breaking import Form

DEMO = CONFIG_PATH.parent
BASE, EXPERT = DEMO / "pool/base", DEMO / "pool/sort"

GOOD_DIR = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Reader:
    """Reads one kind of file.

    Attributes:
        good: Files as they should be.
        form: How they can be broken.
        read: Reads a file; it may write into the folder.
    """

    good: tuple[bytes, ...]
    form: Form
    read: Callable[[Path, bytes], None]


def make_readers(folder: Path) -> dict[str, Reader]:
    """All readers.

    Args:
        folder: Where to put what they need.
    """
    # Listing lm-eval's own tasks takes seconds, once in a process.
    check_known("arc_easy", [])
    config = load_config(CONFIG_PATH)
    run = start_run(set_up(config, DEMO), folder / "run")
    merges = _recipes(run.setup.pool)
    merged = tuple(recipe.to_yaml().encode() for recipe in merges)
    for recipe in merges:
        run.add(f"candidate-{recipe.sha256[:8]}", "proposed", recipe)
    run.commit()
    journal = (run.run_dir / JOURNAL_FILE).read_bytes()
    configs = [CONFIG_PATH, *sorted(DEMO.glob("*.yaml")), *sorted(GOOD_DIR.glob("*.yaml"))]
    adapter = _write_adapter(folder / "adapter")
    tasks = tuple(path.read_bytes() for path in sorted((DEMO / "tasks").glob("*.yaml")))

    def of_model(name: str, form: Form, open_it: Callable[[Path, bytes], None]) -> Reader:
        return Reader(((BASE / name).read_bytes(),), form, open_it)

    return {
        "configuration": Reader(tuple(p.read_bytes() for p in configs), "yaml", _configuration),
        "set": Reader(_SETS, "text", _set),
        "recipe": Reader(merged, "yaml", _recipe),
        "mergekit": Reader(_mergekit(), "yaml", _mergekit_file),
        "journal": Reader((journal,), "lines", _journal),
        "inbox": Reader(merged, "yaml", partial(_inbox, run)),
        "header": of_model("model.safetensors", "tensors", _whole_model("model.safetensors")),
        "index": Reader((_index(),), "json", _sharded),
        "config.json": of_model("config.json", "json", _whole_model("config.json")),
        "generation_config": of_model(
            "generation_config.json", "json", _whole_model("generation_config.json")
        ),
        "tokenizer": of_model("tokenizer.json", "json", _whole_model("tokenizer.json")),
        "tokenizer_config": of_model(
            "tokenizer_config.json", "json", _whole_model("tokenizer_config.json")
        ),
        "adapter": Reader(
            ((adapter / "adapter_config.json").read_bytes(),),
            "json",
            partial(_adapter, adapter, "adapter_config.json"),
        ),
        "adapter header": Reader(
            ((adapter / "adapter_model.safetensors").read_bytes(),),
            "tensors",
            partial(_adapter, adapter, "adapter_model.safetensors"),
        ),
        "task": Reader(tasks, "yaml", _task),
        "rows": Reader((_ROWS,), "lines", _rows),
    }


def _written(place: Path, name: str, content: bytes) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _configuration(place: Path, content: bytes) -> None:
    config = load_config(_written(place, "config.yaml", content))
    config.write(place / "again.yaml")
    assert load_config(place / "again.yaml") == config


_SETS = (
    b"seed=3",
    b"search.budget={candidates: 5}",
    b"pool.experts.1=x",
    b"space.method.kind=ties",
)


def _set(_place: Path, content: bytes) -> None:
    with_overrides(load_config(CONFIG_PATH), [content.decode("utf-8", "surrogateescape")])


def _recipe(place: Path, content: bytes) -> None:
    recipe = read_recipe(_written(place, "recipe.yaml", content))
    _written(place, "again.yaml", recipe.to_yaml().encode())
    assert read_recipe(place / "again.yaml").sha256 == recipe.sha256
    assert Recipe.from_json(recipe.to_json()) == recipe


def _mergekit_file(place: Path, content: bytes) -> None:
    _, recipe = open_mergekit(_written(place, "mergekit.yaml", content))
    recipe.to_yaml()


def _journal(place: Path, content: bytes) -> None:
    read_journal(_written(place, JOURNAL_FILE, content))


def _inbox(run: Run, _place: Path, content: bytes) -> None:
    path = _written(run.run_dir / INBOX_DIR, "recipe.yaml", content)
    try:
        ((_, made),) = read_inbox(run)
        assert isinstance(made, Recipe) or "\n" not in made
        # The inbox takes whatever is raised for a reason; here it counts what it was.
        run.setup.pool.check_recipe(read_recipe(path))
    finally:
        path.unlink()


def _whole_model(name: str) -> Callable[[Path, bytes], None]:
    """Reads a pool whose models have a file in the place of their own."""

    def read(place: Path, content: bytes) -> None:
        folder = _copy(BASE, place / "base")
        (folder / name).unlink()
        _written(folder, name, content)
        # An expert with the same file: what differs between models is refused early.
        _open(folder, folder)
        # Other paths of reading lead through a vocabulary of all models' tokens.
        if name.startswith("tokenizer"):
            _open(BASE, folder, Vocabulary(tokens="union"))

    return read


def _sharded(place: Path, content: bytes) -> None:
    folder = _copy(BASE, place / "sharded")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    _written(folder, "model.safetensors.index.json", content)
    _open(folder, EXPERT)


def _adapter(good: Path, name: str, place: Path, content: bytes) -> None:
    folder = _copy(good, place / "adapter")
    (folder / name).unlink()
    _written(folder, name, content)
    pool = _open(BASE, folder)
    expert = pool.experts[0]
    for tensor in list(pool.layout.places)[:4]:
        expert.tensor(tensor)


def _open(base: Path, expert: Path, vocabulary: Vocabulary | None = None) -> Pool:
    pool = open_pool(
        PoolConfig(
            base=ModelConfig(source=str(base)),
            experts=(ModelConfig(source=str(expert), name="expert"),),
            vocabulary=vocabulary,
        ),
        base.parent,
    )
    load_tokenizer(pool)
    empty_model(pool, torch.device("cpu"))
    return pool


def _copy(source: Path, folder: Path) -> Path:
    """A folder of links to a model's files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def _task(place: Path, content: bytes) -> None:
    folder = place / "tasks"
    for path in (DEMO / "tasks").glob("*.jsonl"):
        _written(folder, path.name, path.read_bytes())
    _written(folder, "task.yaml", content)
    name = next(
        (n for n in ("sort", "reverse", "numeral") if f"demo_{n}".encode() in content), "sort"
    )
    load(f"demo_{name}", [folder], AllowedCode([], folder))


def _rows(place: Path, content: bytes) -> None:
    rows = read_rows(_written(place, "rows.jsonl", content))
    find_columns(rows, None, {})


_ROWS = b"\n".join(
    json.dumps(
        {"question": f"What is {n} plus one?", "choices": [str(n), str(n + 1)], "answer": 1}
    ).encode()
    for n in range(12)
)


def _recipes(pool: Pool) -> list[Recipe]:
    return [
        recipes.task_arithmetic(pool, 0.7),
        recipes.average(pool, ("sort", "reverse")),
        recipes.member(pool, "sort"),
    ]


def _mergekit() -> tuple[bytes, ...]:
    models = {name: str(DEMO / "pool" / name) for name in ("base", "sort", "reverse")}
    ties = """
merge_method: ties
base_model: {base}
models:
  - model: {sort}
    parameters: {{weight: 0.5, density: 0.4}}
  - model: {reverse}
    parameters:
      weight: [0.1, 0.9]
      density:
        - {{filter: mlp, value: 0.3}}
        - value: 0.7
parameters: {{normalize: true, int8_mask: true}}
dtype: float32
"""
    slices = """
merge_method: passthrough
slices:
  - sources: [{{model: {sort}, layer_range: [0, 2]}}]
  - sources: [{{model: {reverse}, layer_range: [1, 4]}}]
dtype: bfloat16
tokenizer_source: base
"""
    slerp = """
merge_method: slerp
base_model: {base}
models: [{{model: {base}}}, {{model: {sort}}}]
parameters: {{t: 0.4}}
chat_template: auto
"""
    return tuple(text.format(**models).encode() for text in (ties, slices, slerp))


def _index() -> bytes:
    from safetensors import safe_open

    with safe_open(BASE / "model.safetensors", framework="pt") as handle:
        names = list(handle.keys())
    shard = "model-00001-of-00001.safetensors"
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)}).encode()


def _write_adapter(folder: Path) -> Path:
    """A small LoRA adapter of the demo's base."""
    folder.mkdir()
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4,
        "target_modules": ["q_proj"], "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "modules_to_save": None,
        "layers_to_transform": None, "base_model_name_or_path": "base",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    config = json.loads((BASE / "config.json").read_text())
    width = config["hidden_size"]
    prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        tensors[prefix.format(layer, "A")] = torch.ones(2, width)
        tensors[prefix.format(layer, "B")] = torch.ones(width, 2)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder
