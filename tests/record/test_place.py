"""Where a run is in MLflow."""

from __future__ import annotations

import pytest
import yaml

from evomerge.record.place import link_to, note_place


def run_dir_of(folder, tracking_uri):
    config = {"record": {"tracking_uri": tracking_uri}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    "address", ["http://host:5000", "http://host:5000/", "http://me:secret@host:5000"]
)
def test_a_link_has_no_secrets(tmp_path, address):
    run_dir = run_dir_of(tmp_path, address)
    assert link_to(run_dir) is None
    note_place(run_dir, "7", "abc")
    page = "#/experiments/7/runs/abc?workflowType=machine_learning"
    assert link_to(run_dir) == f"http://host:5000/{page}"
    assert "secret" not in (run_dir / ".mlflow.json").read_text()


def test_a_link_is_to_the_server_that_has_the_run(tmp_path):
    run_dir = run_dir_of(tmp_path, "http://old:5000")
    note_place(run_dir, "7", "abc")
    assert link_to(run_dir_of(tmp_path, "http://new:5000")) is None
    assert link_to(run_dir_of(tmp_path, "http://old:5000")) is not None


@pytest.mark.parametrize("text", ["", "[]", '{"run": "abc"}', "3"])
def test_a_note_that_is_damaged_is_no_link(tmp_path, text):
    run_dir = run_dir_of(tmp_path, "http://host:5000")
    (run_dir / ".mlflow.json").write_text(text)
    assert link_to(run_dir) is None


def test_a_store_without_a_server_has_no_links(tmp_path):
    run_dir = run_dir_of(tmp_path, None)
    note_place(run_dir, "7", "abc")
    assert link_to(run_dir) is None
