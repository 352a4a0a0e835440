"""The form for a run: it starts from a YAML file, and Prefect takes what it says."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from evomerge.config import Config, load_config
from evomerge.errors import InputError
from flows.form import read
from flows.search import search
from flows.sweep import sweep

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "evomerge/demo").glob("*.yaml")])


@pytest.fixture(scope="module")
def schema():
    return parameter_schema(search.fn).model_dump_for_openapi()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_prefect_takes_what_is_shipped(schema, path):
    form = read(str(path))
    assert form["config_dir"] == str(path.parent)
    assert Config.model_validate(form["config"]) == load_config(path)
    validate(form, schema, raise_on_error=True, preprocess=True)
    # As it is checked where a deployment is made.
    validate(form, schema, raise_on_error=True, preprocess=True, ignore_required=True)


@pytest.mark.parametrize(
    "change",
    [
        {"pool": {"base": "base", "experts": [{"source": "a", "name": "b"}, "c"]}},
        {"score": {"objectives": [{"kind": "worst_of", "of": [{"task": "a"}, {"task": "b"}]}]}},
        {"space": {"kind": "slices", "slices": 3}},
        {"space": None, "phases": []},
    ],
)
def test_prefect_takes_short_and_long_ways_to_write(schema, change):
    config = read(str(ROOT / "evomerge/demo/demo.yaml"))["config"]
    for name, value in change.items():
        config[name] = {**config[name], **value} if name in ("pool", "score") else value
    errors = validate({"config": config}, schema, preprocess=True)
    assert not errors, errors


def test_a_password_is_not_deployed(tmp_path):
    config = yaml.safe_load((ROOT / "evomerge/demo/demo.yaml").read_text())
    config["record"] = {"tracking_uri": "http://me:secret@host:5000"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        read(str(tmp_path / "a.yaml"))
    assert "secret" not in str(caught.value)


def test_dates_of_a_yaml_file_are_deployed(schema, tmp_path):
    config = yaml.safe_load((ROOT / "evomerge/demo/demo.yaml").read_text())
    config["score"] |= {"chat_date": date(2026, 11, 1), "apply_chat_template": True}
    config["search"]["budget"]["deadline"] = datetime(2026, 12, 1, 8)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    validate(read(str(tmp_path / "a.yaml")), schema, raise_on_error=True, preprocess=True)


def test_a_wrong_name_is_refused_before_anything_runs(schema):
    config = read(str(ROOT / "evomerge/demo/demo.yaml"))["config"]
    assert validate({"config": {**config, "serch": {}}}, schema, preprocess=True)


def test_every_field_of_the_form_is_described(schema):
    for each in (schema, *schema["definitions"].values()):
        for name, field in each.get("properties", {}).items():
            assert field.get("description"), (each.get("title"), name)


def test_a_choice_of_many_kinds_is_json_and_of_few_has_tabs(schema):
    space = schema["definitions"]["Config"]["properties"]["space"]
    kinds = [schema["definitions"][each["$ref"].split("/")[-1]] for each in space["anyOf"][:-1]]
    assert [kind["title"] for kind in kinds][:2] == ["parameter", "layer_order"]
    method = kinds[0]["properties"]["method"]
    assert method["anyOf"] == [{"type": "object", "title": "JSON"}, {"type": "null"}]
    assert 'such as {"kind": "ties"}; kinds: ties, ' in method["description"]


def test_the_schema_of_a_configuration_keeps_every_kind():
    spaces = Config.model_json_schema()["$defs"]["ParameterSpaceConfig"]
    assert len(spaces["properties"]["method"]["anyOf"]) >= 22


def test_a_sweep_has_the_same_form():
    own = parameter_schema(sweep.fn).model_dump_for_openapi()
    form = read(str(ROOT / "evomerge/demo/demo.yaml"))
    validate({**form, "seeds": [1, 2]}, own, raise_on_error=True, preprocess=True)


def test_a_file_that_is_no_configuration_is_not_deployed(tmp_path):
    (tmp_path / "a.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="pool"):
        read(str(tmp_path / "a.yaml"))
