"""`make demo` itself: Ray beside Prefect's temporary server, one process tree, one table."""

from __future__ import annotations

import os
import re
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
    # Progress, a line for each batch where there is no terminal, and nothing else.
    lines = done.stderr.splitlines()
    stages = r"(baselines|search|finalists|holdout|random|greedy soup)"
    other = [line for line in lines if not re.match(rf"{stages}(: \w+)?: \d+/\d+ ", line)]
    assert not other, done.stderr
    assert 10 < len(lines) < 80
    own = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    left = [p for p in own if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left
