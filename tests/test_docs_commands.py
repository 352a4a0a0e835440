"""Every command of README and documentation runs, in its page's order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import fork
from docs_pages import PAGES, blocks, lay_out

TRIED_ELSEWHERE = {"make demo", "evomerge task capitals.jsonl --out tasks/capitals.yaml"}
"""By tests/flows/test_demo.py and tests/begin/test_task.py."""

SMALL = "--set search.budget.candidates=12 --set search.finalists=3 --set workers.kind=inline"
"""A search is a search; tests/flows/test_demo.py has it whole."""

WITH_COMMANDS = [page for page in PAGES if blocks(page, "sh") and page.stem != "config_head"]

ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
}


def lines(page: Path) -> list[str]:
    shown = "".join(block.text for block in blocks(page, "sh"))
    stripped = (line.partition(" #")[0].strip() for line in shown.splitlines())
    return [line for line in stripped if line and line not in TRIED_ELSEWHERE]


def smaller(line: str) -> str:
    """The command with a smaller budget."""
    if re.match(r"evomerge (demo|search)\b", line) and "search.budget" not in line:
        return f"{line} {SMALL}"
    return line.replace("candidates=110", "candidates=14")


def run(line: str, folder: Path) -> None:
    words = shlex.split(line)
    if words[0] == "evomerge":
        # In a process of its own that need not import what it needs.
        process = fork(*words[1:], cwd=folder)
        output, errors = process.communicate(timeout=600)
        code = process.returncode
    else:
        done = subprocess.run(
            words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        code, output, errors = done.returncode, done.stdout, done.stderr
    assert code == 0, f"{line}\n{output}{errors}"


@pytest.mark.long
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[page.stem for page in WITH_COMMANDS])
def test_the_commands_of_a_page_run(page, tmp_path):
    lay_out(tmp_path)
    for shown in blocks(page, "yaml"):
        if shown.title is not None and shown.title != "recipe.yaml":
            (tmp_path / shown.title).write_text(shown.text, encoding="utf-8")
    if page.stem == "looking":
        run(smaller("evomerge demo --pareto --run-dir runs/front"), tmp_path)
    for line in lines(page):
        run(smaller(line), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("page", ["README", "commands"])
def test_the_python_example_runs(page, tmp_path):
    lay_out(tmp_path)
    (found,) = (path for path in PAGES if path.stem == page)
    (code,) = blocks(found, "python")
    (named,) = re.findall(r'run\("(.+?)"\)', code.text)
    if page == "README":
        run(f"{lines(found)[0]} {SMALL}", tmp_path)
    else:
        small = (tmp_path / named).read_text(encoding="utf-8")
        (tmp_path / named).write_text(small.replace("candidates: 100", "candidates: 4"))
    # In a folder of its own: beside it "evomerge" would be taken for the package.
    script = tmp_path / "scripts/example.py"
    script.parent.mkdir()
    script.write_text(code.text, encoding="utf-8")
    run(f"{sys.executable} {script}", tmp_path)
