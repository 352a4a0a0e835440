"""Tables that find no room are said once, and change no result."""

from __future__ import annotations

import logging

import yaml

import evomerge
from evomerge.config import load_config
from evomerge.journal import normal_form, read_journal
from evomerge.search.check import check

SPACE = {"kind": "parameter", "method": {"kind": "ties"}}


def test_check_says_what_tables_need(workspace, tmp_path):
    methods = [{"kind": "linear"}, {"kind": "dare_ties"}, {"kind": "ties"}]
    space = {"kind": "parameter", "methods": methods, "method": None, "groups": 3}
    config = load_config(workspace(space=space))
    lines = [line for line in check(config, tmp_path).lines if line.startswith("tables")]
    assert [line.partition(":")[0] for line in lines] == [
        "tables of `dare_ties`",
        "tables of `ties`",
    ]
    for line in lines:
        assert "each actor needs 0.0" in line and line.endswith("GiB")
    few = load_config(workspace(space=space), ["workers.statistics_gib=1e-6"])
    lines = [line for line in check(few, tmp_path).lines if line.startswith("tables")]
    for line in lines:
        assert "and has 0.00 MiB; what finds no room is computed again" in line


def test_a_run_says_once_that_there_is_no_room(workspace, tmp_path, caplog):
    short = {"statistics_gib": 1e-6}
    found = {}
    for name, workers in (("roomy", {}), ("short", short)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            evomerge.run(workspace(space=SPACE, workers=workers), tmp_path / name)
        said = [r.message for r in caplog.records if "statistics of the pool" in r.message]
        assert len(said) == (name != "roomy")
        assert all("and have 0.00 MiB" in line for line in said)
        events, _ = read_journal(tmp_path / name / "journal.jsonl")
        found[name] = normal_form(events)
    assert found["roomy"] == found["short"]
    # A run that goes on elsewhere goes by the memory that is there.
    written = yaml.safe_load((tmp_path / "roomy/config.yaml").read_text())
    assert written["workers"]["statistics_gib"] is None
