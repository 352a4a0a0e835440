"""The reference of the configuration is what the program reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from evomerge.config import Config, json_schema, load_config

ROOT = Path(__file__).parents[1]
SHIPPED = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "evomerge/demo").glob("*.yaml")])
sys.path.append(str(ROOT / "docs"))

import make_config  # noqa: E402

DEFINITIONS = Config.model_json_schema()["$defs"]
PAGE = make_config.Page(Config.model_json_schema(), make_config.examples())


def test_page_and_schema_are_as_the_program_has_them():
    assert make_config.PAGE.read_text(encoding="utf-8") == PAGE.text()
    assert json.loads(make_config.SCHEMA.read_text(encoding="utf-8")) == json_schema()


def test_every_example_is_valid():
    wrong = []
    for name, field, value in PAGE.examples():
        # Dates and tuples as JSON has them.
        given = json.loads(json.dumps(value, default=str))
        validator = Draft202012Validator({**field, "$defs": DEFINITIONS})
        wrong += [f"{name}: {error.message}" for error in validator.iter_errors(given)]
    assert wrong == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_shipped_fits_the_schema_that_it_names(path):
    load_config(path)
    first, _ = path.read_text(encoding="utf-8").split("\n", 1)
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == make_config.SCHEMA
    errors = Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(path.read_text()))
    assert [error.message for error in errors] == []


def test_every_key_is_described():
    schema = json_schema()
    for model in (schema, *schema["$defs"].values()):
        assert "Attributes:" not in model["description"]
        for name, field in model["properties"].items():
            assert field["description"], name
            assert not field["description"].startswith("See `"), name


def test_the_command_prints_and_writes_it(tmp_path):
    command = [sys.executable, "-m", "evomerge", "schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == json_schema()
    subprocess.run([*command, "--out", "s.json"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "s.json").read_text() == printed
