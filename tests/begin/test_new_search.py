"""A configuration for models and tasks: what is found, what is proposed, and that it can be run."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest
import yaml
from transformers import GlmConfig

import vocabularies
from adapters import save_adapter
from commands import run_here
from evomerge.begin.commented import to_commented_yaml
from evomerge.begin.new_search import Wishes, write_search
from evomerge.begin.sources import entries_of, source_of, task_of
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.models.small import small_model
from evomerge.search.check import check
from fixtures import make_pool, make_tasks, make_tokenizer, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("begin")
    make_pool(folder / "pool", num_experts=3)
    make_tasks(folder / "tasks", num_documents=200)
    save_adapter(folder / "pool/lora", folder / "pool/base")
    return folder


@pytest.fixture
def begin(folder, monkeypatch, tmp_path):
    """Writes a configuration of some experts into a new folder beside the pool."""
    monkeypatch.chdir(folder)
    out = folder / tmp_path.name
    out.mkdir()

    def begin(*experts: str, tasks=("choose", "write"), **wishes):
        wanted = Wishes(
            "pool/base",
            tuple(f"pool/{name}" for name in experts),
            tuple(f"tasks/toy_{name}.yaml" for name in tasks),
            **wishes,
        )
        made = write_search(wanted, out / "mine.yaml")
        return made, yaml.safe_load(made.path.read_text())

    return begin


def test_the_configuration_passes_its_check(begin):
    made, data = begin("expert0", "expert1", "expert2")
    config = load_config(made.path)
    # What was checked when it was written is what the file says.
    assert check(config, made.path.parent).lines == made.lines[1:]
    assert data["pool"] == {
        "base": "../pool/base",
        "experts": ["../pool/expert0", "../pool/expert1", "../pool/expert2"],
        "dtype": "float32",
    }
    assert data["score"]["include_path"] == ["../tasks"]
    assert data["score"]["objectives"] == [
        {"task": "toy_choose", "metric": "acc"},
        {"task": "toy_write", "metric": "exact_match"},
    ]
    assert data["space"]["groups"] == "whole" and data["optimizer"] == {"kind": "cma"}
    assert made.lines[0] == "tokenizer: 12 tokens, the same in all models; without a chat template"


def test_it_can_be_searched_at_once(begin):
    made, _ = begin("expert0", "expert1", overrides=("search.budget.candidates=3",))
    inline = ("--set", "workers.kind=inline", "--set", "record.enabled=false")
    done = run_here("search", made.path.name, *inline, cwd=made.path.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("experts", "wishes", "space", "optimizer"),
    [
        (1, {}, {"kind": "parameter", "groups": "whole"}, "cma"),
        (3, {"front": True}, {"kind": "parameter", "groups": "whole"}, "map"),
        (1, {"layer_order": True}, {"kind": "layer_order", "models": ["expert0", "base"]}, None),
        (2, {"layer_order": True}, {"models": ["expert0", "expert1"], "max_hops": 3}, "nevergrad"),
        (2, {"layer_order": True, "front": True}, {"kind": "layer_order"}, "nevergrad_front"),
    ],
)
def test_the_space_is_what_was_wished_for(experts, wishes, space, optimizer, begin):
    made, data = begin(*(f"expert{number}" for number in range(experts)), **wishes)
    assert space.items() <= data["space"].items()
    assert optimizer in (None, data["optimizer"]["kind"])
    check(load_config(made.path), made.path.parent)


def test_few_experts_have_weights_in_parts_of_the_layers(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name, seed in (("base", 0), ("a", 1), ("b", 2)):
        save_model(tmp_path / name, seed, num_hidden_layers=8)
    models = [str(tmp_path / name) for name in "ab"]
    for experts, groups in ((models[:1], 4), (models, 4)):
        wishes = Wishes(str(tmp_path / "base"), tuple(experts), ("tasks/toy_choose.yaml",))
        out = tmp_path / f"{len(experts)}.yaml"
        write_search(wishes, out)
        data = yaml.safe_load(out.read_text())
        assert data["space"]["groups"] == groups
        # Absolute folders stay so.
        assert data["pool"]["experts"] == experts


def test_layers_of_a_family_that_is_not_listed_have_parts_too(tmp_path, folder, monkeypatch):
    """It has layers, which is all that is asked of it."""
    monkeypatch.chdir(folder)
    for seed, name in enumerate(["base", "a"]):
        model = small_model(GlmConfig(), seed)
        assert model is not None and model.config.num_hidden_layers == 4
        model.save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    wishes = Wishes(str(tmp_path / "base"), (str(tmp_path / "a"),), ("tasks/toy_choose.yaml",))
    write_search(wishes, tmp_path / "new.yaml")
    assert yaml.safe_load((tmp_path / "new.yaml").read_text())["space"]["groups"] == 4


def test_an_adapter_is_an_expert(begin):
    made, data = begin("expert0", "lora")
    assert data["pool"]["experts"][1] == "../pool/lora"
    assert any("lora" in line and "LoRA adapter of the base" in line for line in made.lines)


def test_added_tokens_are_aligned_to_the_base(tmp_path, folder, monkeypatch):
    vocabularies.save_pool(tmp_path)
    monkeypatch.chdir(folder)
    experts = [path for path in sorted(tmp_path.iterdir()) if path.name != "base"]
    wishes = Wishes(str(tmp_path / "base"), tuple(map(str, experts)), ("tasks/toy_choose.yaml",))
    made = write_search(wishes, tmp_path / "new.yaml")
    data = yaml.safe_load(made.path.read_text())
    assert data["pool"]["vocabulary"] == {"tokens": "base"}
    assert "others that experts added" in made.lines[0]


def test_overrides_are_in_the_file(begin):
    overrides = ("seed=5", "space.method.kind=ties", "search.fidelity.kind=full")
    made, data = begin("expert0", "expert1", overrides=overrides)
    assert data["seed"] == 5 and data["space"]["method"] == {"kind": "ties"}
    config = load_config(made.path)
    assert config.seed == 5 and config.search.fidelity.kind == "full"


@pytest.mark.parametrize(("count", "is_sampled"), [(60, False), (600, True)])
def test_candidates_are_scored_on_samples_of_many_documents(count, is_sampled, folder, tmp_path):
    make_tasks(tmp_path, num_documents=count)
    task = str(tmp_path / "toy_choose.yaml")
    wishes = Wishes(str(folder / "pool/base"), (str(folder / "pool/expert0"),), (task,))
    write_search(wishes, tmp_path / "new.yaml")
    data = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert ("fidelity" in data["search"]) == is_sampled


def test_folders_of_one_name_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshot = "cache/models--org--math-7b/snapshots/0123456789abcdef"
    places = ("code/checkpoint-500", "math/checkpoint-500", "merged", "a b", snapshot)
    for place in places:
        Path(place).mkdir(parents=True)
    assert entries_of(places, Path()) == [
        {"source": "code/checkpoint-500", "name": "code-checkpoint-500"},
        {"source": "math/checkpoint-500", "name": "math-checkpoint-500"},
        {"source": "merged", "name": f"{tmp_path.name}-merged"},
        {"source": "a b", "name": "a-b"},
        {"source": snapshot, "name": "math-7b"},
    ]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"experts": ("pool/expert0", "pool/expert0")}, "expert pool/expert0 is named twice"),
        ({"experts": ("./pool/none",)}, "no model folder './pool/none'"),
        ({"base": "pool/lora"}, "the base must be a whole model"),
        ({"tasks": ("tasks/none.yaml",)}, "no task file 'tasks/none.yaml'"),
        ({"tasks": ("tasks/data.jsonl",)}, "`evomerge task FILE.jsonl` makes one"),
        ({"tasks": ("toy_choose",)}, "no task 'toy_choose'"),
        ({"tasks": ("tasks/toy_choose.yaml",) * 2}, "task 'toy_choose' is named twice"),
        ({"front": True}, "a front trades two tasks or more"),
        ({"overrides": ("seed=x",)}, "--set: seed: expected an integer.*got 'x'"),
        ({"overrides": ("search.buget=x",)}, "--set: search.buget: unknown field; did you mean"),
        ({"base": ""}, "no model folder ''"),
        ({"base": "pool/bsae"}, "no model folder 'pool/bsae'; did you mean 'base'?"),
        ({"base": "~nobody-here/base"}, "there is no user '~nobody-here'"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_written(wishes, words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    given = {
        "base": "pool/base",
        "experts": ("pool/expert0",),
        "tasks": ("tasks/toy_choose.yaml",),
        **wishes,
    }
    with pytest.raises(InputError, match=words):
        write_search(Wishes(**given), Path("new.yaml"))
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("new.txt", "must end in .yaml"),
        ("taken.yaml", "is there already"),
        ("a/b.yaml", "no folder"),
    ],
)
def test_no_file_is_replaced(out, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken.yaml").touch()
    with pytest.raises(InputError, match=words):
        write_search(Wishes("base", ("a",), ("t",)), Path(out))


def test_a_source_is_relative_to_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/a").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    assert source_of("models/a", Path("configs")) == "../models/a"
    assert source_of(str(tmp_path / "models/a"), Path("configs")) == str(tmp_path / "models/a")
    assert source_of("org/name", Path("configs")) == "org/name"


def test_a_source_is_found_from_behind_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("models/a", "elsewhere/deep/configs"):
        Path(name).mkdir(parents=True)
    Path("configs").symlink_to("elsewhere/deep/configs")
    Path("models/link").symlink_to("a")
    for name in ("a", "link"):
        source = source_of(f"models/{name}", Path("configs"))
        assert source == f"../../../models/{name}" and (Path("configs") / source).is_dir()


def test_the_sum_of_many_weights_has_a_number_of_its_own(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in range(9):
        (tmp_path / f"e{name}").symlink_to(folder / f"pool/expert{name % 3}")
    experts = tuple(str(tmp_path / f"e{name}") for name in range(9))
    write_search(Wishes("pool/base", experts, ("tasks/toy_choose.yaml",)), tmp_path / "new.yaml")
    data = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert data["space"]["weights_sum"] == "one"
    assert data["space"]["vary"]["scale"] == {"low": 0.0, "high": 3.0, "start": 1.0}


def test_the_task_with_the_fewest_documents_is_named(begin, folder):
    task = yaml.safe_load((folder / "tasks/toy_choose.yaml").read_text())
    lines = (folder / "tasks/choose.jsonl").read_text().splitlines()
    (folder / "tasks/few.jsonl").write_text("\n".join(lines[:30]))
    task |= {"task": "toy_few", "dataset_kwargs": {"data_files": {"test": "few.jsonl"}}}
    (folder / "tasks/toy_few.yaml").write_text(yaml.safe_dump(task))
    words = "toy_few has 30 documents, the fewest, and splits are the same for all tasks"
    made, _ = begin("expert0", tasks=("write", "few"))
    assert any(line.startswith(f"splits: {words}: of toy_write most") for line in made.lines)
    assert "toy_few has 30 documents, the fewest" in made.path.read_text()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "dataset_path: json", "defines no task"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.yml", "task: a", "rename it"),
    ],
)
def test_a_file_that_is_no_task_is_refused(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        task_of(str(tmp_path / name), tmp_path)


def test_comments_and_long_lists_are_written_as_yaml():
    data = {
        "name": "no",
        "score": {"tasks": ["a" * 60, "b" * 60, "on"], "short": [1, 2], "text": "x: y\nz # no"},
        "empty": {"list": [], "mapping": {}},
    }
    comments = {"score": "word " * 40, "score.short": "one\ntwo"}
    text = to_commented_yaml("head", data, comments)
    assert yaml.safe_load(text) == data
    assert max(map(len, text.splitlines())) <= 100
    assert "  # one\n  # two\n  short: [1, 2]\n" in text


def test_lists_are_given_behind_one_option(folder):
    words = ("--base", "pool/base", "--experts", "pool/expert0", "pool/expert1", "--json")
    tasks = ("--tasks", "tasks/toy_choose.yaml", "tasks/toy_write.yaml", "--out", "several.yaml")
    done = run_here("init", *words, *tasks, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == "several.yaml"
    data = yaml.safe_load((folder / "several.yaml").read_text())
    assert len(data["pool"]["experts"]) == 2 and len(data["score"]["objectives"]) == 2


def test_a_list_may_stand_behind_an_equals_sign(folder):
    words = ("--base=pool/base", "--experts=pool/expert0", "pool/expert1", "--out", "equals.yaml")
    done = run_here("init", *words, "--tasks=tasks/toy_choose.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    data = yaml.safe_load((folder / "equals.yaml").read_text())
    assert data["pool"]["experts"] == ["pool/expert0", "pool/expert1"]


def test_what_is_missing_is_named_where_nobody_can_be_asked(folder):
    done = run_here("init", "--base", "pool/base", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: init: --experts DIR ..., --tasks TASK ... missing")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a terminal of its own needs fork")
def test_in_a_terminal_it_asks(folder):
    answers = ["./none", "pool/base", "", "pool/expert0", "pool/expert0", "pool/expert1", ""]
    answers += ["tasks/toy_choose.yaml", "tasks/toy_write.yaml", "", "y", "n", "asked.yaml"]
    said, code = _in_a_terminal([sys.executable, "-m", "evomerge", "init"], folder, answers)
    assert code == 0, said
    assert "no model folder './none'" in said and "at least 1 must be named" in said
    assert "expert pool/expert0 is named twice" in said and "llama, " in said
    data = yaml.safe_load((folder / "asked.yaml").read_text())
    assert data["pool"]["experts"] == ["pool/expert0", "pool/expert1"]
    assert data["optimizer"] == {"kind": "map"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a terminal of its own needs fork")
def test_what_the_command_says_is_not_asked(folder):
    options = ["--layer-order", "--set", "seed=5", "--out", "half.yaml"]
    answers = ["pool/base", "pool/expert0", "", "none", "tasks/toy_choose.yaml", ""]
    command = [sys.executable, "-m", "evomerge", "init", *options]
    said, code = _in_a_terminal(command, folder, answers)
    assert code == 0, said
    assert "no task 'none'" in said and "Vary the layers?" not in said
    data = yaml.safe_load((folder / "half.yaml").read_text())
    assert data["seed"] == 5 and data["space"]["kind"] == "layer_order"
    said, code = _in_a_terminal(command, folder, [])
    assert code == 2 and "is there already" in said and "Base model" not in said


def _in_a_terminal(command: list[str], folder: Path, answers: list[str]) -> tuple[str, int]:
    """Answer each question of a command, in a terminal of its own."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execv(command[0], command)
    said, ends = b"", time.monotonic() + 120
    while time.monotonic() < ends:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            said += os.read(terminal, 4096)
        except OSError:  # it has ended
            break
        if answers and said.endswith(b": "):
            os.write(terminal, f"{answers.pop(0)}\n".encode())
            said += b"\n"
    _, status = os.waitpid(process, 0)
    return said.decode(), os.waitstatus_to_exitcode(status)
