"""Nothing that a search writes or says has a password or token in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import make_workspace

PLANTED = {
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-password",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret+key",
    "PREFECT_API_KEY": "planted-prefect-key",
}
IN_ADDRESS = "planted-in-an-address"

SPILL = f"""
import os

calls = 0

def process_results(doc, results):
    global calls
    calls += 1
    # Behind the parents, and for some candidates.
    if 95 <= calls < 98:
        said = " ".join(os.environ[name] for name in {list(PLANTED)!r})
        raise RuntimeError(f"cannot reach https://me:{IN_ADDRESS}@host with {{said}}")
    return {{"exact_match": float(results[0].strip() == doc["answer"])}}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("secrets")
    make_workspace(
        folder,
        record={"enabled": True},
        search={"budget": {"candidates": 20}},
        workers={"num_actors": 1},
    )
    config = folder / "config.yaml"
    config.write_text(
        config.read_text().replace("include_path:", "allow_code: [toy_write]\n  include_path:")
    )
    (folder / "tasks/spill.py").write_text(SPILL)
    task = folder / "tasks/toy_write.yaml"
    task.write_text(f"{task.read_text()}process_results: !function spill.process_results\n")
    ran = subprocess.run(
        [sys.executable, "-m", "evomerge", "search", "config.yaml", "--run-dir", "run"],
        cwd=folder,
        env={**os.environ, **PLANTED},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return folder, ran


def test_candidates_have_failed_with_secrets_in_what_was_raised(searched):
    folder, ran = searched
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in (folder / "run/journal.jsonl").open()]
    failed = [event["data"] for event in events if event["kind"] == "failed"]
    assert failed
    assert all("cannot reach https://***@host with ***" in data["reason"] for data in failed)
    assert any("***" in (data["trace"] or "") for data in failed)


def test_no_byte_that_was_written_or_said_has_one(searched):
    folder, ran = searched
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(path.name == "mlflow.db" for path in texts)
    assert any(path.name == "report.html" for path in texts)
    texts |= {Path("stdout"): ran.stdout.encode(), Path("stderr"): ran.stderr.encode()}
    del texts[folder / "tasks/spill.py"]
    for path, content in texts.items():
        if path.suffix == ".pyc":
            continue
        for secret in (*PLANTED.values(), IN_ADDRESS):
            assert secret.encode() not in content, path
