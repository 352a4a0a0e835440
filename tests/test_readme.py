"""The README tells the truth: its commands run, and what it quotes is what is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_quoted_configuration_is_the_file():
    (quoted,) = blocks("yaml")
    assert quoted == (ROOT / "configs/three_7b.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/looking.md", "docs/own_task.md"])
def test_every_file_it_links_is_there(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target.partition("#")[0]).exists(), target


def test_make_has_its_targets():
    for target in ("demo", "test", "test-long", "check", "demo-pool"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0 and f"make {target}" in README


@pytest.mark.long
def test_every_evomerge_command_runs(tmp_path):
    shutil.copytree(ROOT / "evomerge/demo", tmp_path / "evomerge/demo")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    looking = (ROOT / "docs/looking.md").read_text(encoding="utf-8")
    shown = [*blocks("sh"), *re.findall(r"```sh\n(.*?)```", looking, re.DOTALL)]
    commands = [line for block in shown for line in block.splitlines()]
    commands = [line for line in commands if line.startswith("evomerge ")]
    assert len(commands) >= 9
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.long
def test_the_python_example_runs(tmp_path):
    (code,) = blocks("python")
    config = (ROOT / "evomerge/demo/demo.yaml").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "evomerge/demo", tmp_path / "evomerge/demo")
    small = config.replace("candidates: 100", "candidates: 4")
    (tmp_path / "evomerge/demo/demo.yaml").write_text(small)
    # In a folder of its own: beside it "evomerge" would be taken for the package.
    script = tmp_path / "scripts/example.py"
    script.parent.mkdir()
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
