"""`make demo` itself: Ray beside Prefect's temporary server, one process tree, one table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_demo_flow_ends_with_its_table_and_leaves_no_process(tmp_path):
    # The test's own Prefect home: the temporary server's database is kept in it.
    environment = os.environ | {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    before = {child.pid for child in psutil.process_iter()}
    done = subprocess.run(
        [sys.executable, "-m", "flows.demo"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(chosen)" in done.stdout and "95 % interval" in done.stdout
    assert (tmp_path / "runs/demo/report.html").is_file()
    assert (tmp_path / "runs/demo/export/model.safetensors").is_file()
    # Nothing but the table on a stream that is no terminal.
    assert not done.stderr.strip(), done.stderr
    own = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    left = [p for p in own if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left
