"""Wrong input: one message that says what, where and what would be valid; exit code 2; no trace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from fixtures import make_config, make_workspace, save_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from evomerge.cli import main

EXPERT = "pool/expert1"
WEIGHTS = f"{EXPERT}/model.safetensors"
INDEX = f"{EXPERT}/model.safetensors.index.json"
HEAD = "lm_head.weight"

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        change: Makes it in a copy of a good workspace.
        says: What the message must contain.
        commands: Command lines that must all refuse it.
        line: Words of the configuration's line that the message must name, if any.
    """

    change: Change
    says: tuple[str, ...]
    commands: tuple[str, ...] = ("check config.yaml", "search config.yaml")
    line: str = ""


def config(**changes) -> Change:
    return lambda folder: make_config(folder, **changes)


def text(replace: str, by: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        assert replace in path.read_text()
        path.write_text(path.read_text().replace(replace, by, 1))

    return change


def nothing(_folder: Path) -> None:
    pass


def no_config(folder: Path) -> None:
    (folder / "config.yaml").unlink()


def garbage_header(folder: Path) -> None:
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).write_bytes(b"\xff" * size)


def truncated(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) - 100])


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / EXPERT / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        edit(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def sharded(shard_of: Callable[[str], str], drop: str | None = None) -> Change:
    """Two shards and an index that says where each tensor is; `drop` is left out of its shard."""

    def change(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        names = sorted(state)
        first = {n: state[n] for n in names[::2] if n != drop}
        second = {n: state[n] for n in names[1::2] if n != drop}
        save_file(first, folder / EXPERT / "a.safetensors")
        save_file(second, folder / EXPERT / "b.safetensors")
        weight_map = {n: shard_of(f"{'ab'[i % 2]}.safetensors") for i, n in enumerate(names)}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


def other_shape(folder: Path) -> None:
    shutil.rmtree(folder / EXPERT)
    save_model(folder / EXPERT, 2, intermediate_size=32)


def other_architecture(folder: Path) -> None:
    path = folder / EXPERT / "config.json"
    path.write_text(path.read_text().replace('"llama"', '"mistral"'))


def other_tokenizer(folder: Path) -> None:
    path = folder / EXPERT / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer))
    Tokenizer.from_file(str(path))


def run_folder(folder: Path) -> None:
    """A run that has begun and has no candidate yet."""
    from evomerge.config import load_config
    from evomerge.search.run import start_run
    from evomerge.search.setup import set_up

    start_run(set_up(load_config(folder / "config.yaml"), folder), folder / "run").close()


def journal_only(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "journal.jsonl").write_text("")


def recipe_file(folder: Path) -> None:
    from evomerge.config import load_config
    from evomerge.pool import open_pool
    from evomerge.space import recipes

    pool = open_pool(load_config(folder / "config.yaml").pool, folder)
    (folder / "recipe.yaml").write_text(recipes.uniform(pool).to_yaml())


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))


def edit_recipe(**changes) -> Change:
    def change(folder: Path) -> None:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    return change


def damaged_journal(folder: Path) -> None:
    path = folder / "run" / "journal.jsonl"
    line = path.read_text()
    path.write_text(line.replace('"seed":1', '"seed":2') + line)


def space(**changes) -> Change:
    return config(space={"kind": "parameter", "method": {"kind": "task_arithmetic"}, **changes})


def splits(**changes) -> Change:
    return config(score={"splits": {"search": 10, "validation": 10, "holdout": 20, **changes}})


def objectives(*entries: dict) -> Change:
    return config(score={"objectives": list(entries)})


CHECK = ("check config.yaml",)

CASES = {
    # The configuration itself: file, line, field, what is valid.
    "unknown field": Case(
        text("name: toy\n", "name: toy\nworker:\n  num_actors: 1\n"),
        ("worker: unknown field", "did you mean 'workers'?"),
        line="worker:",
    ),
    "unknown field inside": Case(
        text("  num_actors: 1", "  num_actor: 1"),
        ("workers.num_actor: unknown field", "did you mean 'num_actors'?"),
        line="num_actor:",
    ),
    "unknown field of a method": Case(
        space(method={"kind": "linear", "normalise": True}),
        ("space.method.normalise: unknown field", "did you mean 'normalize'?"),
        line="normalise:",
    ),
    "wrong type": Case(
        text("candidates: 6", "candidates: many"),
        ("search.budget.candidates", "integer", "'many'"),
        line="candidates:",
    ),
    "missing section": Case(
        text("space:", "spacf:"), ("space: this field is required", "did you mean 'space'?")
    ),
    "many mistakes": Case(
        text("  search: 10\n", "  search: ten\n    x1: 1\n    x2: 2\n    x3: 3\n    x4: 4\n"),
        ("score.splits.search", "score.splits.x1", "3 more"),
    ),
    "no config file": Case(no_config, ("config.yaml", "cannot read", "No such file")),
    "a folder as config": Case(
        nothing, ("pool", "cannot read", "directory"), ("check pool", "search pool")
    ),
    "not YAML": Case(
        lambda folder: (folder / "config.yaml").write_text("name: [toy\nseed: 1\n"),
        ("config.yaml", "not YAML", "line 2"),
    ),
    "not a mapping": Case(
        lambda folder: (folder / "config.yaml").write_text("- toy\n"),
        ("config.yaml: expected a mapping", "pool, score, space"),
    ),
    "empty file": Case(
        lambda folder: (folder / "config.yaml").write_text(""),
        ("config.yaml: expected a mapping",),
    ),
    "not text": Case(
        lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00\x80"),
        ("config.yaml: cannot read",),
    ),
    "newer schema": Case(
        text("name: toy\n", "name: toy\nschema_version: 9\n"),
        ("schema_version 9", "reads up to 1", "install a newer evomerge"),
    ),
    "bad name": Case(
        text("name: toy\n", "name: ../toy\n"),
        ("name", "'../toy'"),
        line="name:",
    ),
    "unknown method": Case(
        space(method={"kind": "tie"}),
        ("space.method: no kind 'tie'", "did you mean 'ties'?"),
        line="method:",
    ),
    "unknown optimizer": Case(
        config(optimizer={"kind": "cmaes"}),
        ("optimizer: no kind 'cmaes'", "did you mean 'cma'?"),
        line="optimizer:",
    ),
    "unknown space": Case(
        space(kind="parameters"),
        ("space: no kind 'parameters'", "did you mean 'parameter'?"),
        line="space:",
    ),
    "zero budget": Case(
        config(search={"budget": {"candidates": 0}}),
        ("search.budget.candidates", "greater than 0", "got 0"),
        line="candidates:",
    ),
    "no budget": Case(
        config(search={"budget": {}}),
        ("search.budget", "no end", "candidates, documents, seconds"),
        line="budget:",
    ),
    "target is no budget": Case(
        config(search={"budget": {"target": 0.5}}), ("search.budget", "no end")
    ),
    "no experts": Case(
        config(pool={"experts": []}),
        ("pool.experts", "at least 1 item"),
        line="experts:",
    ),
    "tracking address": Case(
        config(record={"tracking_uri": "htp:/server:5000"}),
        ("record.tracking_uri", "'htp:/server:5000'", "http://HOST:PORT"),
        line="tracking_uri:",
    ),
    "set without value": Case(
        nothing,
        ("--set 'seed'", "a.b=value"),
        ("check config.yaml --set seed", "search config.yaml --set seed"),
    ),
    "set of no YAML": Case(
        nothing, ("--set 'seed=[1'", "not YAML"), ("check config.yaml --set seed=[1",)
    ),
    "set into a number": Case(
        nothing, ("--set 'seed.x=1'", "'seed'"), ("check config.yaml --set seed.x=1",)
    ),
    "set into a list by name": Case(
        nothing,
        ("--set 'pool.experts.first=x'", "'first'"),
        ("check config.yaml --set pool.experts.first=x",),
    ),
    "set beyond a list": Case(
        nothing,
        ("--set 'pool.experts.7.source=x'",),
        ("check config.yaml --set pool.experts.7.source=x",),
    ),
    "set of an unknown field": Case(
        nothing,
        ("workers.actors: unknown field", "valid: address, num_actors"),
        ("check config.yaml --set workers.actors=2",),
    ),
    "a preference of no number": Case(
        objectives({"task": "toy_choose", "preference": float("nan")}),
        ("score.objectives.0.preference", "got nan"),
        line="preference:",
    ),
    "a range without end": Case(
        space(vary={"weight": {"high": float("inf")}}),
        ("space.vary.weight", "finite number"),
        line="high:",
    ),
    "a budget without end": Case(
        config(search={"budget": {"seconds": float("inf")}}),
        ("search.budget.seconds", "finite number"),
        line="seconds:",
    ),
    # Models.
    "missing model": Case(
        config(pool={"experts": ["pool/expert0", "./pool/expert9"]}),
        ("'./pool/expert9' is missing", "pool/expert9"),
    ),
    "missing model like a hub id": Case(
        config(pool={"experts": ["pool/expert0", "pool/expert9"]}),
        ("'pool/expert9'", "no such folder", "hub"),
    ),
    "one name twice": Case(
        config(pool={"experts": ["pool/expert0", "pool/expert0"]}),
        ("two models are called 'expert0'", "name:"),
    ),
    "a name that is a path": Case(
        config(pool={"experts": [{"source": "pool/expert1", "name": "../../x"}]}),
        ("'../../x'", "name:", "letters, digits"),
    ),
    "an expert called base": Case(
        config(pool={"experts": ["pool/expert0", {"source": "pool/expert1", "name": "base"}]}),
        ("two models are called 'base'",),
    ),
    "other shape": Case(
        other_shape,
        ("'expert1'", "'model.layers.0.mlp.gate_proj.weight'", "[32, 16]", "[24, 16]"),
    ),
    "other architecture": Case(
        other_architecture, ("'expert1'", "model_type mistral", "llama", "share an architecture")
    ),
    "garbage header": Case(
        garbage_header, ("'expert1'", WEIGHTS, "not a whole safetensors file", "again")
    ),
    "truncated": Case(truncated, ("'expert1'", WEIGHTS, "not a whole safetensors file", "again")),
    "empty weights": Case(
        lambda folder: (folder / WEIGHTS).write_bytes(b""), ("'expert1'", WEIGHTS, "safetensors")
    ),
    "pickle only": Case(
        pickle_only,
        ("'expert1'", "pytorch_model.bin", "never loaded", "expected model.safetensors"),
    ),
    "no weights": Case(
        lambda folder: (folder / WEIGHTS).unlink(), ("'expert1'", "no safetensors", EXPERT)
    ),
    "no model config": Case(
        lambda folder: (folder / EXPERT / "config.json").unlink(), ("'expert1'", "config.json")
    ),
    "no base config": Case(
        lambda folder: (folder / "pool/base/config.json").unlink(), ("base", "config.json")
    ),
    "unknown architecture": Case(
        lambda folder: [
            path.write_text(path.read_text().replace('"llama"', '"nollama"'))
            for path in folder.glob("pool/*/config.json")
        ],
        ("base", "nollama"),
    ),
    "missing tensor": Case(
        tensors(lambda state: state.pop(HEAD)), ("'expert1'", "no tensor", f"'{HEAD}'")
    ),
    "extra tensor": Case(
        tensors(lambda state: state.update(extra=torch.ones(2))), ("'expert1'", "extra", "1 in all")
    ),
    "quantized tensor": Case(
        tensors(lambda state: state.update({HEAD: state[HEAD].to(torch.int8)})),
        ("'expert1'", f"'{HEAD}'", "I8", "BF16, F16, F32", "dequantize"),
    ),
    "index names a missing shard": Case(
        sharded(lambda name: name.replace("b.", "c.")), ("'expert1'", "c.safetensors is missing")
    ),
    "index names a tensor absent from its shard": Case(
        sharded(lambda name: name, drop=HEAD),
        ("'expert1'", f"'{HEAD}'", "a.safetensors", "no such tensor"),
    ),
    "index leaves its folder": Case(
        sharded(lambda name: f"../base/{name}"), ("'expert1'", "outside", "../base/")
    ),
    "index names no files": Case(
        both(sharded(lambda name: name), lambda folder: (folder / INDEX).write_text("{}")),
        ("'expert1'", "index.json", "weight_map"),
    ),
    "index of numbers": Case(
        both(
            sharded(lambda name: name),
            lambda folder: (folder / INDEX).write_text('{"weight_map": {"lm_head.weight": 3}}'),
        ),
        ("'expert1'", "index.json", "outside", "3"),
    ),
    "index is no JSON": Case(
        both(sharded(lambda name: name), lambda folder: (folder / INDEX).write_text("{")),
        ("'expert1'", "index.json"),
    ),
    "other tokenizer": Case(
        other_tokenizer,
        ("tokenizers differ", "'a'", "id 2 in 'base'", "3 in 'expert1'"),
    ),
    # Tasks.
    "unknown task": Case(
        objectives({"task": "toy_chose"}), ("no task 'toy_chose'", "include_path"), CHECK
    ),
    "unknown metric": Case(
        objectives({"task": "toy_choose", "metric": "accuracy"}),
        ("'toy_choose'", "no metric 'accuracy'", "valid: acc"),
    ),
    "unknown filter": Case(
        objectives({"task": "toy_choose", "filter": "some"}),
        ("'toy_choose'", "no filter 'some'", "valid: none"),
    ),
    "an objective twice": Case(
        objectives({"task": "toy_choose"}, {"task": "toy_choose"}), ("toy_choose/acc", "twice")
    ),
    "no preference": Case(
        objectives({"task": "toy_choose", "preference": 0}),
        ("preference 0"),
        line="score:",
    ),
    "no objectives": Case(
        objectives(), ("score.objectives", "at least 1 item"), line="objectives:"
    ),
    "include_path is missing": Case(
        config(score={"include_path": ["task"]}),
        ("score.include_path", "'task'", "/task)"),
    ),
    "task data are missing": Case(
        lambda folder: (folder / "tasks/write.jsonl").unlink(), ("'toy_write'", "write.jsonl")
    ),
    "task data are damaged": Case(
        lambda folder: (folder / "tasks/write.jsonl").write_text('{"question": "a'),
        ("'toy_write' cannot be loaded", "JSON parse error", "row 0"),
    ),
    "task file is no YAML": Case(
        lambda folder: (folder / "tasks/toy_write.yaml").write_text("task: [toy_write\n"),
        ("tasks/toy_write.yaml: not YAML",),
        CHECK,
    ),
    "task file is no task": Case(
        lambda folder: (folder / "tasks/toy_write.yaml").write_text(
            (folder / "tasks/toy_write.yaml").read_text().replace("generate_until", "guess")
        ),
        ("'toy_write'", "guess"),
    ),
    "too few documents": Case(
        splits(holdout=30),
        ("'toy_choose'", "40 documents", "need 50", "score.splits"),
    ),
    "too few examples": Case(
        config(score={"num_fewshot": 2}),
        ("'toy_choose'", "2 examples", "0 over", "score.splits"),
    ),
    "unknown group_by": Case(
        splits(group_by="story"), ("'toy_choose'", "no field 'story'", "question, choices, label")
    ),
    # What varies.
    "weights of both signs": Case(
        space(method={"kind": "linear"}, vary={"weight": {"low": -1.0, "high": 1.0}}),
        ("space.vary.weight", "-1.0 to 1.0", "normalize: false"),
    ),
    "range upside down": Case(
        space(vary={"weight": {"low": 1.0, "high": 0.0}}),
        ("space.vary.weight", "below high"),
        line="weight:",
    ),
    "density of two": Case(
        space(method={"kind": "ties"}, vary={"density": {"low": 0.0, "high": 2.0}}),
        ("space.vary.density", "0.0 to 2.0", "range"),
    ),
    "unknown parameter": Case(
        space(vary={"weigth": {}}), ("space.vary", "'weigth'", "did you mean 'weight'?")
    ),
    "nothing varies": Case(space(vary={}), ("space", "nothing varies", "space.vary")),
    "more groups than layers": Case(space(groups=4), ("space.groups: 4", "3 layers", "1 to 3")),
    "unknown groups": Case(space(groups="layers"), ("space.groups", "'layers'"), line="groups:"),
    "unknown expert": Case(
        space(experts=["expert2"]),
        ("space.experts", "'expert2'", "did you mean 'expert"),
    ),
    "slerp of three": Case(
        both(
            lambda folder: save_model(folder / "pool/expert2", 3),
            config(
                pool={"experts": ["pool/expert0", "pool/expert1", "pool/expert2"]},
                space={"method": {"kind": "slerp"}},
            ),
        ),
        ("slerp", "exactly 2", "3 experts", "space.experts"),
    ),
    "start_from is missing": Case(
        config(search={"start_from": ["nothing.yaml"]}), ("nothing.yaml", "cannot read")
    ),
    # Runs and recipes.
    "search into a run": Case(
        journal_only,
        ("run has a run already", "evomerge resume run"),
        ("search config.yaml --run-dir run",),
    ),
    "search into a file": Case(
        lambda folder: (folder / "run").write_text("mine"),
        ("run",),
        ("search config.yaml --run-dir run",),
    ),
    "no run folder": Case(
        lambda folder: (folder / "run").mkdir(),
        ("run", "no run folder", "journal.jsonl"),
        (
            "resume run",
            "export run --out out",
            "score --run run --candidate c00000",
            "sync run",
        ),
    ),
    "missing run folder": Case(
        nothing, ("run", "no run folder"), ("resume run", "export run --out out", "sync run")
    ),
    "enqueue into no run folder": Case(
        both(recipe_file, lambda folder: (folder / "run").mkdir()),
        ("run", "no run folder"),
        ("enqueue run recipe.yaml",),
    ),
    "damaged journal": Case(
        both(run_folder, damaged_journal),
        ("journal.jsonl", "line 1 is damaged", "checksum"),
        ("resume run", "export run --out out"),
    ),
    "resume with changed models": Case(
        both(run_folder, flip_a_byte),
        ("'expert1' has changed since the run began",),
        ("resume run",),
    ),
    "holdout of a model": Case(
        nothing,
        ("--split 'holdout'", "search, validation", "--run RUN_DIR"),
        ("score pool/expert0 config.yaml --split holdout",),
    ),
    "unknown split": Case(
        run_folder,
        ("--split 'test'", "valid: search, validation"),
        (
            "score pool/expert0 config.yaml --split test",
            "score --run run --candidate base --split test",
        ),
    ),
    "score without a config": Case(
        nothing, ("MODEL_OR_RECIPE CONFIG", "--run RUN_DIR"), ("score pool/expert0",)
    ),
    "score of a missing model": Case(
        nothing, ("./pool/expert9", "missing"), ("score ./pool/expert9 config.yaml",)
    ),
    "unknown candidate": Case(
        run_folder,
        ("no candidate 'c00007'",),
        ("export run --out out --candidate c00007", "score --run run --candidate c00007"),
    ),
    "export before a choice": Case(
        run_folder, ("no candidate is chosen yet", "--candidate"), ("export run --out out",)
    ),
    "export into a folder": Case(
        both(run_folder, lambda folder: (folder / "out").mkdir()),
        ("out exists already",),
        ("export run --out out",),
    ),
    "build into a folder": Case(
        both(recipe_file, lambda folder: (folder / "out").mkdir()),
        ("out exists already",),
        ("build recipe.yaml --out out",),
    ),
    "enqueue a recipe of another pool": Case(
        both(run_folder, flip_a_byte, recipe_file),
        ("'expert1'", "not a model of this run's pool", "expert0 ("),
        ("enqueue run recipe.yaml",),
    ),
    "build with a changed member": Case(
        both(recipe_file, flip_a_byte),
        ("'expert1'", "hash", "changed"),
        ("build recipe.yaml --out out",),
    ),
    "build with a missing member": Case(
        both(recipe_file, lambda folder: shutil.rmtree(folder / EXPERT)),
        (EXPERT, "missing"),
        ("build recipe.yaml --out out", "score recipe.yaml config.yaml"),
    ),
    "missing recipe": Case(
        run_folder,
        ("recipe.yaml", "cannot read", "No such file"),
        ("build recipe.yaml --out out", "enqueue run recipe.yaml"),
    ),
    "recipe of a newer release": Case(
        both(recipe_file, edit_recipe(schema_version=2)),
        ("recipe.yaml", "schema_version 2", "install a newer evomerge"),
        ("build recipe.yaml --out out",),
    ),
    "recipe without base": Case(
        both(recipe_file, edit_recipe(members={})),
        ("recipe.yaml", "members", "'base'"),
        ("build recipe.yaml --out out",),
    ),
    "recipe without parts": Case(
        both(recipe_file, edit_recipe(parts=[])),
        ("recipe", "part"),
        ("build recipe.yaml --out out",),
    ),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_workspace(folder)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def check_message(stderr: str, code: object, says: tuple[str, ...]) -> None:
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert 1 <= len(lines) <= 5, stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[:1], stderr
    assert all(len(line) <= 400 for line in lines), stderr
    for words in says:
        assert words in stderr
    assert code == 2, stderr


def ray_runs():
    """Whether this process is connected to a Ray: other tests' searches may have started one."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@pytest.mark.parametrize("name", CASES)
def test_is_one_message(name, workspace, tmp_path, monkeypatch, capfd):
    case = CASES[name]
    folder = tmp_path / "work"
    shutil.copytree(workspace, folder)
    case.change(folder)
    monkeypatch.chdir(folder)
    before, had_ray = tree(folder), ray_runs()
    for command in case.commands:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["evomerge", *command.split()])
        try:
            code: object = main()
        except SystemExit as end:
            code = end.code
        output = capfd.readouterr()
        if case.line:
            lines = (folder / "config.yaml").read_text().splitlines()
            number = 1 + next(i for i, line in enumerate(lines) if case.line in line)
            assert f"config.yaml:{number}: " in output.err
        check_message(output.err, code, case.says)
        assert not output.out
        assert tree(folder) == before, "something is half-written"
    assert ray_runs() == had_ray


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("chek config.yaml", "Did you mean 'check'?"),
        ("check", "Missing argument 'CONFIG'"),
        ("search config.yaml --runs x", "--run-dir"),
        ("build recipe.yaml", "Missing option '--out'"),
    ],
)
def test_a_wrong_command_line_is_as_short(command, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evomerge", *command.split()])
    with pytest.raises(SystemExit) as end:
        main()
    stderr = capfd.readouterr().err
    assert end.value.code == 2
    assert says in stderr
    assert len(stderr.splitlines()) <= 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["unknown architecture", "task data are damaged"])
def test_the_real_command_says_nothing_more(name, workspace, tmp_path):
    """Other libraries' warnings and progress bars would show only in a process of its own."""
    case = CASES[name]
    folder = tmp_path / "work"
    shutil.copytree(workspace, folder)
    case.change(folder)
    command = [sys.executable, "-c", "import sys; from evomerge.cli import main; sys.exit(main())"]
    ended = subprocess.run(
        [*command, "check", "config.yaml"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    check_message(ended.stderr, ended.returncode, case.says)
    assert not ended.stdout
