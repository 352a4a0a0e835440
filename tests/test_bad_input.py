"""Wrong input: one message that says what, where and what would be valid; exit code 2; no trace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bad_input import configs, fronts, models, paths, runs, spaces, tasks, workers
from commands import run_here
from evomerge.cli import main
from fixtures import make_workspace

MODULES = (configs, models, tasks, runs, paths, fronts, spaces, workers)
CASES = {name: case for module in MODULES for name, case in module.CASES.items()}


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


@pytest.mark.parametrize("name", ["unknown field", "unknown architecture", "task data are damaged"])
def test_check_says_what_a_search_would_say(name, workspace, tmp_path):
    """A search begins with the check; the others are tried with the search alone."""
    shutil.copytree(workspace, tmp_path / "work")
    CASES[name].change(tmp_path / "work")
    check, search = (run_here(c, "config.yaml", cwd=tmp_path / "work") for c in ("check", "search"))
    assert check.stderr == search.stderr and check.returncode == search.returncode == 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("chek config.yaml", "Did you mean 'check'"),
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
