"""Every configuration to copy is searched, with small models of its family and toy tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from adapters import save_adapter
from commands import run_here
from evomerge.pool.adapters.adapter import is_adapter
from families import family_config
from fixtures import make_tasks, make_tokenizer

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))

FAMILIES = {"qwen3": "Qwen3", "gemma3": "Gemma3"}
NUM_LAYERS = {"remove_layers": 10}
LORA = {"lora_pool"}
KINDS = ("choose", "write")

CHAT = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}>{% endif %}"
)


def save(folder: Path, name: str, seed: int) -> None:
    """A random model of a configuration's family."""
    layers = {"num_hidden_layers": NUM_LAYERS[name]} if name in NUM_LAYERS else {}
    config = family_config(FAMILIES.get(name, "Mistral"), **layers)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = make_tokenizer()
    if name == "qwen3":
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def save_tasks(folder: Path, objectives: list[dict[str, Any]]) -> None:
    """Toy tasks by the names, with the metrics and filters that are asked for."""
    make_tasks(folder, num_documents=40)
    kinds = {name: yaml.safe_load((folder / f"toy_{name}.yaml").read_text()) for name in KINDS}
    for path in folder.glob("toy_*.yaml"):
        path.unlink()
    for objective in objectives:
        if "task" not in objective:
            continue
        metric = objective["metric"]
        task = dict(kinds["write" if metric == "exact_match" else "choose"])
        task["task"] = objective["task"]
        task["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
        if "filter" in objective:
            first = [{"function": "take_first"}]
            task["filter_list"] = [{"name": objective["filter"], "filter": first}]
        (folder / f"{objective['task']}.yaml").write_text(yaml.safe_dump(task))


def stand_in(folder: Path, path: Path) -> tuple[Path, int]:
    """The configuration with models and tasks that are there; and how many experts it has."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    save(folder / "base", path.stem, 0)
    data["pool"]["base"] = "base"
    for number, entry in enumerate(data["pool"]["experts"]):
        source = entry if isinstance(entry, str) else entry["source"]
        name = Path(source).name if isinstance(entry, str) else entry["name"]
        if path.stem in LORA:
            modules = ["q_proj", "v_proj"]
            save_adapter(folder / name, folder / "base", number + 1, target_modules=modules)
        else:
            save(folder / name, path.stem, number + 1)
        data["pool"]["experts"][number] = name
    save_tasks(folder / "tasks", data["score"]["objectives"])
    data["score"]["include_path"] = ["tasks"]
    # Answers of random models come to no end.
    data["score"]["health"] = dict.fromkeys(data["score"].get("health", {}), 1.0)
    data["score"]["splits"] = {"search": 12, "validation": 10, "holdout": 10}
    # What a GPU, a cluster and servers are for is tested elsewhere.
    data["workers"] = {"kind": "inline"}
    data["record"] = {"enabled": False}
    for budget in [phase["budget"] for phase in data.get("phases", ())] or [
        data["search"]["budget"]
    ]:
        budget["candidates"] = 12
    data["search"]["finalists"] = 2
    out = folder / path.name
    out.write_text(yaml.safe_dump(data, sort_keys=False))
    return out, len(data["pool"]["experts"])


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_configuration_to_copy_is_searched(path, tmp_path):
    config, num_experts = stand_in(tmp_path, path)
    done = run_here("search", config.name, "--run-dir", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_dir"] == "run"
    members = yaml.safe_load((tmp_path / "run/recipes/uniform.yaml").read_text())["members"]
    assert len(members) == num_experts + 1
    if path.stem in LORA:
        assert all(is_adapter(Path(m["source"])) for n, m in members.items() if n != "base")


def test_there_are_ten():
    assert len(SHIPPED) >= 10
