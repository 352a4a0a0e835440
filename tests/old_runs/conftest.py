"""Run folders as an earlier release left them; see make.py."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from evomerge.demo import CONFIG_PATH

HERE = Path(__file__).parent
PLACE = "/old/demo"


@pytest.fixture
def old_run(tmp_path):
    """A function that unpacks a run by name, with the models of this checkout."""

    def unpack(name: str) -> Path:
        with tarfile.open(HERE / f"{name}.tar.xz") as file:
            file.extractall(tmp_path / "runs", filter="data")
        run_dir = tmp_path / "runs" / name
        config_path = run_dir / "config.yaml"
        text = config_path.read_text(encoding="utf-8")
        text = text.replace(f"{PLACE}/recipe", f"{tmp_path}/runs/start/recipe")
        config_path.write_text(text.replace(PLACE, str(CONFIG_PATH.parent)), encoding="utf-8")
        return run_dir

    return unpack
