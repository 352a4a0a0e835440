"""Code in a model's folder is never run, whatever standard input answers."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import evomerge
from commands import run_here
from evomerge.cli import main
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.models.stack import MODELING_FILE
from evomerge.pool import Pool, load_tokenizer, open_pool, read_config
from evomerge.pool.foreign_code import without_code
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.space import recipes
from fixtures import make_tokenizer, make_workspace

MODULE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path({marker!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
OWN_MODEL = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
OWN_TOKENIZER = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
YES = "y\n" * 100


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def name_code(folder: Path) -> Path:
    """Give all models of a workspace code of their own; returns what it writes when it runs."""
    marker_path = folder / "the code has run"
    for model_dir in (folder / "pool").iterdir():
        (model_dir / "own.py").write_text(MODULE.format(marker=str(marker_path)))
        change(model_dir / "config.json", auto_map=OWN_MODEL)
        change(
            model_dir / "tokenizer_config.json",
            tokenizer_class="OwnTokenizer",
            auto_map=OWN_TOKENIZER,
        )
    return marker_path


def need_the_tokenizer(folder: Path) -> None:
    for model_dir in (folder / "pool").iterdir():
        (model_dir / "tokenizer.json").unlink()


def need_the_model(folder: Path) -> None:
    for model_dir in (folder / "pool").iterdir():
        change(model_dir / "config.json", model_type="own")


def need_a_part(folder: Path) -> None:
    """transformers knows the configuration and no language model of it."""
    for model_dir in (folder / "pool").iterdir():
        change(model_dir / "config.json", model_type="t5")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(kept, tmp_path, monkeypatch) -> Path:
    shutil.copytree(kept, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "stdin", io.StringIO(YES))
    return tmp_path / "work"


def open_workspace(folder: Path) -> Pool:
    return open_pool(load_config(folder / "config.yaml").pool, folder)


def test_check_uses_what_can_be_read_without_it(workspace, caplog):
    marker_path = name_code(workspace)
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert ran.returncode == 0, ran.stderr
    assert not marker_path.exists()
    assert "[y/N]" not in ran.stdout + ran.stderr
    assert sys.stdin.read() == YES
    for model in ("base", "expert0", "expert1"):
        assert f"model '{model}'" in caplog.text
    assert "own.OwnConfig" in caplog.text and "own.OwnTokenizer" in caplog.text


def test_check_refuses_a_tokenizer_that_is_code(workspace):
    marker_path = name_code(workspace)
    need_the_tokenizer(workspace)
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert ran.returncode == 2
    assert not marker_path.exists()
    assert ran.stderr.startswith("error: model 'base'") and "Traceback" not in ran.stderr
    assert str(workspace / "pool/base/tokenizer_config.json") in ran.stderr
    assert (
        "own.OwnTokenizer" in ran.stderr and "valid: a folder with a tokenizer.json" in ran.stderr
    )


NEEDED: dict[str, tuple[Callable[[Path], None], str]] = {
    "tokenizer": (need_the_tokenizer, "own.OwnTokenizer"),
    "model": (need_the_model, "own.OwnConfig"),
    "a part of the model": (need_a_part, "own.OwnConfig"),
}


@pytest.mark.parametrize("needed", NEEDED)
@pytest.mark.parametrize("command", ["check", "score", "build"])
def test_what_needs_it_is_refused(needed, command, workspace, monkeypatch, capsys):
    recipe = recipes.uniform(open_workspace(workspace))
    (workspace / "recipe.yaml").write_text(recipe.to_yaml())
    marker_path = name_code(workspace)
    need, code = NEEDED[needed]
    need(workspace)
    arguments = {
        "check": ["check", "config.yaml"],
        "score": ["score", "pool/base", "config.yaml", "--split", "search"],
        "build": ["build", "recipe.yaml", "--out", "out"],
    }[command]
    monkeypatch.setattr(sys, "argv", ["evomerge", *arguments])
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) <= 5
    assert code in said and "never run" in said and "valid: " in said
    assert str(workspace / "pool/base") in said
    assert not marker_path.exists() and not (workspace / "out").exists()


def test_a_model_is_scored_without_it(workspace, monkeypatch, capsys):
    command = ["evomerge", "score", "pool/base", "config.yaml", "--split", "search"]
    monkeypatch.setattr(sys, "argv", command)
    marker_path, printed = workspace / "the code has run", []
    for change_pool in (lambda _folder: None, name_code):
        change_pool(workspace)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "toy_choose" in printed[0]
    assert not marker_path.exists()


def path_of(pool: Pool) -> Recipe:
    """A path that only a modeling file of its own runs."""
    hops = [Hop(model="base", layer=layer) for layer in (0, 1, 1, 2)]
    return Recipe(members=pool.members, path=LayerPath(outer="base", hops=hops))


@pytest.mark.parametrize("make", [recipes.uniform, path_of])
def test_an_export_names_none_but_a_paths_own(make, workspace):
    """Trusted by whoever loads it, with the module beside it."""
    expected = load_tokenizer(open_workspace(workspace)).get_vocab()
    marker_path = name_code(workspace)
    change(
        workspace / "pool/base/tokenizer_config.json", auto_map={"AutoTokenizer": "a/b--own.Own"}
    )
    nested = {"image_processor": {"auto_map": OWN_TOKENIZER, "size": 1}}
    (workspace / "pool/base/processor_config.json").write_text(json.dumps(nested))
    pool = open_workspace(workspace)
    out_dir = workspace / "out"
    export_checkpoint(pool, make(pool), out_dir, "card")
    shutil.copy(workspace / "pool/base/own.py", out_dir)
    config = json.loads((out_dir / "config.json").read_text())
    own = config.pop("auto_map", {})
    assert all(name.startswith(MODELING_FILE.removesuffix(".py")) for name in own.values())
    assert bool(own) == (make is path_of)
    for path in out_dir.glob("*.json"):
        if path.name != "config.json":
            assert "auto_map" not in path.read_text(), path
    assert json.loads((out_dir / "processor_config.json").read_text())["image_processor"] == {
        "size": 1
    }
    AutoConfig.from_pretrained(out_dir, trust_remote_code=True)
    for trust in (False, True):
        tokenizer = AutoTokenizer.from_pretrained(out_dir, trust_remote_code=trust)
        assert tokenizer.get_vocab() == expected
    assert not marker_path.exists()


def test_files_without_it_are_copied_byte_for_byte(workspace):
    pool = open_workspace(workspace)
    base_dir, out_dir = pool.base.model_dir, workspace / "out"
    (base_dir / "processor_config.json").write_text('{"size":  [1,\t2]}')
    export_checkpoint(pool, recipes.uniform(pool), out_dir, "card")
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        assert (out_dir / name).read_bytes() == (base_dir / name).read_bytes()


def test_a_configuration_that_names_it_wrongly_is_read_without(workspace):
    expected = read_config(workspace / "pool/base").to_dict()
    for names in (5, "own.OwnConfig", ["own.OwnConfig"], {"AutoConfig": 5}):
        change(workspace / "pool/base/config.json", auto_map=names)
        assert read_config(workspace / "pool/base").to_dict() == expected
        open_workspace(workspace)


def test_compiled_code_of_the_hub_is_not_fetched(workspace):
    change(workspace / "pool/base/config.json", attn_implementation="someone/attention")
    pool = open_workspace(workspace)
    assert read_config(pool.base.model_dir)._attn_implementation is None
    change(workspace / "pool/base/config.json", attn_implementation="eager")
    assert read_config(pool.base.model_dir)._attn_implementation == "eager"


def test_a_folder_without_a_tokenizer_is_one_message(workspace):
    pool = open_workspace(workspace)
    for path in pool.base.model_dir.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match="'base'.*pool/base.*no tokenizer"):
        load_tokenizer(pool)


def test_code_is_cut_out_at_any_depth():
    data = {
        "auto_map": {"AutoConfig": "x.Y"},
        "vision_config": {"auto_map": {"AutoModel": "x.Y"}, "depth": [1, {"auto_map": 2, "a": 3}]},
        "attn_implementation": {"": "sdpa"},
    }
    assert without_code(data) == {
        "vision_config": {"depth": [1, {"a": 3}]},
        "attn_implementation": {"": "sdpa"},
    }


ALL = ("base", "expert0", "expert1")


def trust(folder: Path, *names: str) -> None:
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["pool"]["trust_remote_code"] = list(names)
    config["workers"] = {"kind": "inline"}
    path.write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("need", [need_the_model, need_the_tokenizer])
def test_code_runs_where_the_configuration_trusts_the_model(need, workspace, caplog):
    marker_path = name_code(workspace)
    need(workspace)
    if need is need_the_tokenizer:
        # What such code reads.
        for model_dir in (workspace / "pool").iterdir():
            make_tokenizer().save_pretrained(workspace / "else")
            shutil.copy(workspace / "else/tokenizer.json", model_dir)
    trust(workspace, *ALL)
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert ran.returncode == 0, ran.stderr
    assert marker_path.exists() and "which runs" in caplog.text
    assert sys.stdin.read() == YES


def test_code_of_others_does_not_run(workspace):
    marker_path = name_code(workspace)
    need_the_model(workspace)
    trust(workspace, "expert0", "expert1")
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert ran.returncode == 2 and "pool.trust_remote_code names the model" in ran.stderr
    assert str(workspace / "pool/base") in ran.stderr and not marker_path.exists()
    trust(workspace, "base", "expert0")
    (workspace / "pool/expert1/own.py").write_text("raise SystemExit('not trusted')")
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert ran.returncode == 2 and str(workspace / "pool/expert1") in ran.stderr
    trust(workspace, "bas")
    ran = run_here("check", "config.yaml", cwd=workspace)
    assert "pool.trust_remote_code: no model 'bas'; did you mean 'base'" in ran.stderr


def test_a_trusted_model_is_searched_and_written_with_its_code(workspace):
    plain = evomerge.run(workspace / "config.yaml", workspace / "plain")
    name_code(workspace)
    need_the_model(workspace)
    trust(workspace, *ALL)
    trusted = evomerge.run(workspace / "config.yaml", workspace / "trusted")
    assert trusted.best == plain.best
    scores = [result.results.combined(result.best, "holdout").value for result in (plain, trusted)]
    assert scores[0] == scores[1]
    pool = open_workspace(workspace)
    out_dir = workspace / "out"
    export_checkpoint(pool, recipes.uniform(pool), out_dir, "card")
    assert (out_dir / "own.py").read_text() == (workspace / "pool/base/own.py").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(out_dir, trust_remote_code=True)
    assert type(loaded).__name__ == "OwnModel"
    # A recipe says nothing of trust.
    (workspace / "recipe.yaml").write_text(recipes.uniform(pool).to_yaml())
    ran = run_here("build", "recipe.yaml", "--out", "built", cwd=workspace)
    assert ran.returncode == 2 and "own.OwnConfig" in ran.stderr
