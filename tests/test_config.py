"""The configuration: round trips, places of mistakes, versions and plug-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from evomerge.config import Config, load_config
from evomerge.errors import InputError
from evomerge.journal import CONFIG_FILE
from evomerge.search.run import start_run
from evomerge.search.setup import set_up
from fixtures import make_config, make_workspace

ROOT = Path(__file__).parent.parent
SHIPPED = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("evomerge/demo/*.yaml")])

EVERYTHING = {
    "schema_version": 1,
    "seed": 7,
    "pool": {
        "base": {"source": "org/name", "revision": "v1"},
        "experts": ["pool/expert0", {"source": "pool/expert1", "name": "other"}],
        "dtype": "bfloat16",
    },
    "score": {
        "kind": "lm_eval",
        "objectives": [
            {"task": "toy_choose", "metric": "acc", "filter": "none", "preference": 0.25},
            {"task": "toy_write"},
        ],
        "splits": {"search": 1, "validation": 2, "holdout": 3, "seed": 3, "group_by": "q"},
        "num_fewshot": 2,
        "batch_tokens": 512,
    },
    "space": {
        "kind": "parameter",
        "method": {"kind": "ties"},
        "experts": ["other"],
        "groups": 2,
        "components": True,
        "vary": {"weight": {"low": 0.1, "high": 1.7, "start": 1 / 3}},
        "fix": {"density": 0.1 + 0.2},
    },
    "optimizer": {"kind": "cma", "sigma": 0.1, "popsize": 8, "restarts": True, "diagonal": False},
    "search": {
        "budget": {"candidates": 5, "seconds": 1.5, "deadline": "2030-01-02T03:04:05", "target": 1},
        "start_from": ["a.yaml"],
        "task_arithmetic_scales": [0.1, 1e-17],
    },
    "workers": {"address": "ray://10.0.0.1:10001", "num_gpus": 0.5, "job_timeout_s": 60},
    "record": {"tracking_uri": "http://127.0.0.1:5000", "experiment": "mine"},
}


def round_trip(config: Config, folder: Path) -> Config:
    config.write(folder / "again.yaml")
    return load_config(folder / "again.yaml")


def lines_of(error: pytest.ExceptionInfo[InputError]) -> list[str]:
    return str(error.value).splitlines()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_round_trip(path, tmp_path):
    config = load_config(path)
    assert round_trip(config, tmp_path) == config


def test_minimal_and_full_configurations_round_trip(tmp_path):
    minimal = load_config(make_config(tmp_path))
    assert round_trip(minimal, tmp_path) == minimal
    full = load_config(make_config(tmp_path, **EVERYTHING))
    again = round_trip(full, tmp_path)
    assert again == full
    assert again.space.vary["weight"].start == 1 / 3
    assert again.space.fix["density"] == 0.1 + 0.2
    assert again.search.task_arithmetic_scales == (0.1, 1e-17)
    assert again.search.budget.deadline == datetime(2030, 1, 2, 3, 4, 5)


def test_a_resolved_configuration_round_trips_and_resolves_to_itself(tmp_path):
    setup = set_up(load_config(make_workspace(tmp_path)), tmp_path)
    assert setup.config.resolved is not None
    assert round_trip(setup.config, tmp_path) == setup.config
    run_dir = tmp_path / "elsewhere" / "run"
    start_run(setup, run_dir).close()
    written = load_config(run_dir / CONFIG_FILE)
    assert written == setup.config
    # Its folders are absolute and its models pinned: it means the same from anywhere.
    again = set_up(written, run_dir)
    assert again.config == written
    assert again.splits == setup.splits
    assert [c.model_dir for c in again.pool] == [c.model_dir for c in setup.pool]


@pytest.mark.parametrize(
    ("old", "new", "where", "near"),
    [
        ("name: toy", "nam: toy", "nam", "name"),
        ("seed: 1", "sed: 1", "sed", "seed"),
        ("  experts:", "  expert:", "pool.expert", "experts"),
        ("  objectives:", "  objective:", "score.objective", "objectives"),
        ("    search: 10", "    serch: 10", "score.splits.serch", "search"),
        ("  - task: toy_write", "  - tusk: toy_write", "score.objectives.1.tusk", "task"),
        ("  finalists: 2", "  finalist: 2", "search.finalist", "finalists"),
        ("    candidates: 6", "    candidate: 6", "search.budget.candidate", "candidates"),
        ("  enabled: false", "  enable: false", "record.enable", "enabled"),
        ("  kind: cma", "  kind: cma\n  sigmas: 1", "optimizer.sigmas", "sigma"),
        (
            "    kind: task_arithmetic",
            "    kind: ties\n    majority_signs: 1",
            "space.method.majority_signs",
            None,
        ),
        ("  kind: parameter", "  kind: parameter\n  group: whole", "space.group", "groups"),
        (
            "  kind: parameter",
            "  kind: parameter\n  vary: {weight: {hihg: 1}}",
            "space.vary.weight.hihg",
            "high",
        ),
    ],
)
def test_an_unknown_field_has_its_line_and_the_nearest_name(old, new, where, near, tmp_path):
    path = make_config(tmp_path)
    text = path.read_text()
    assert text.count(f"{old}\n") == 1
    path.write_text(text.replace(f"{old}\n", f"{new}\n"))
    number = text[: text.index(f"{old}\n")].count("\n") + 1 + new.count("\n")
    with pytest.raises(InputError) as error:
        load_config(path)
    (line,) = [line for line in lines_of(error) if "unknown field" in line]
    assert line.startswith(f"{path}:{number}: {where}: unknown field")
    assert near is None or f"did you mean '{near}'?" in line


def test_lines_are_right_behind_comments_and_in_flow_style(tmp_path):
    path = make_config(tmp_path)
    data = yaml.safe_load(path.read_text())
    data["search"]["finalists"] = -3
    rows = [f"# comment {n}" for n in range(30)]
    rows += [f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=9999)}".rstrip("\n.")
             for key, value in data.items()]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    number = 1 + next(i for i, row in enumerate(rows) if row.startswith("search:"))
    with pytest.raises(InputError) as error:
        load_config(path)
    (line,) = lines_of(error)
    assert line.startswith(f"{path}:{number}: search.finalists: ")
    assert "greater than or equal to 1, got -3" in line


def test_a_mistake_at_every_field_is_still_five_lines(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"field{n}: {n}\n" for n in range(40)))
    with pytest.raises(InputError) as error:
        load_config(path)
    assert 2 <= len(lines_of(error)) <= 5


@pytest.mark.parametrize("version", [2, 17])
def test_a_newer_version_is_refused_with_what_to_install(version, tmp_path):
    # Fields that only the newer release knows must not hide the reason.
    path = make_config(tmp_path, schema_version=version, novelty=["x"])
    with pytest.raises(InputError, match=f"schema_version {version}.*install a newer evomerge"):
        load_config(path)


@pytest.mark.parametrize("version", [0, "one", None, 1.5])
def test_a_version_that_never_was_is_refused(version, tmp_path):
    with pytest.raises(InputError, match="schema_version"):
        load_config(make_config(tmp_path, schema_version=version))


def test_a_configuration_is_frozen(tmp_path):
    config = load_config(make_config(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2


PLUGIN = '''
"""A package that brings a method and an optimizer."""

from typing import Literal

from evomerge.methods.protocol import MethodConfig
from evomerge.methods.linear import Linear
from evomerge.optimize.protocol import OptimizerConfig


class HalfConfig(MethodConfig):
    kind: Literal["half"] = "half"
    normalize: bool = True
    share: float = 0.5


class GuessConfig(OptimizerConfig):
    kind: Literal["guess"] = "guess"
    luck: int = 0


def add_method(registry):
    registry.add(HalfConfig, Linear)


def add_optimizer(registry):
    registry.add(GuessConfig, lambda config, box, preferences, seed: None)
'''

CHECK_PLUGIN = """
import sys
from pathlib import Path
from evomerge.config import Config, load_config
from evomerge.errors import InputError
from evomerge.methods import METHODS
from evomerge.recipe import Member, Part, Recipe, read_recipe

path = Path(sys.argv[1])
config = load_config(path)
print(type(config.space.method).__name__, config.space.method.share)
print(type(config.optimizer).__name__, config.optimizer.luck)
config.write(path)
assert load_config(path) == config
try:
    load_config(path, ["space.method.shore=1"])
except InputError as error:
    print(error)
try:
    load_config(path, ["space.method.kind=halve"])
except InputError as error:
    print(error)
print("half" in str(Config.model_json_schema()))
member = Member(sha256="0", source="/x")
part = Part(method=config.space.method, models=("e",), parameters={"weight": {"e": 1.0}})
recipe = Recipe(members={"base": member, "e": member}, parts=(part,))
assert Recipe.from_json(recipe.to_json()) == recipe
print(Recipe.from_json(recipe.to_json()).parts[0].method.share)
"""


def run_python(code: str, path: Path, site_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{site_dir}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def install(site_dir: Path, entry_points: str) -> None:
    """A distribution as pip leaves it: a module and its metadata."""
    metadata_dir = site_dir / "half_merge-1.0.dist-info"
    metadata_dir.mkdir(parents=True)
    (metadata_dir / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: half-merge\nVersion: 1.0\n"
    )
    (metadata_dir / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    (site_dir / "half_merge.py").write_text(PLUGIN)


def test_kinds_of_other_packages_are_valid(tmp_path):
    install(
        tmp_path / "site",
        """
        [evomerge.methods]
        half = half_merge:add_method

        [evomerge.optimizers]
        guess = half_merge:add_optimizer
        """,
    )
    changes = {
        "space": {"method": {"kind": "half", "share": 0.25}},
        "optimizer": {"kind": "guess", "luck": 3},
    }
    path = make_config(tmp_path, **changes)
    with pytest.raises(InputError, match="no kind 'half'"):
        load_config(path)
    ended = run_python(CHECK_PLUGIN, path, tmp_path / "site")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["HalfConfig 0.25", "GuessConfig 3"]
    assert "space.method.shore: unknown field; did you mean 'share'?" in lines[2]
    assert "space.method: no kind 'halve'; did you mean 'half'?" in lines[3]
    assert lines[4:] == ["True", "0.25"]


READ_RECIPE = """
import sys
from pathlib import Path
from evomerge.workers.worker import Recipe

print(Recipe.from_json(Path(sys.argv[1]).read_text()).parts[0].method.share)
"""


def test_a_worker_reads_recipes_with_kinds_of_other_packages(tmp_path):
    """A worker's process imports `evomerge.workers`, not the configuration."""
    install(tmp_path / "site", "[evomerge.methods]\nhalf = half_merge:add_method\n")
    member = {"sha256": "0", "source": "/x"}
    part = {"method": {"kind": "half", "share": 0.25}, "models": ["base"]}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"members": {"base": member}, "parts": [part]}))
    ended = run_python(READ_RECIPE, path, tmp_path / "site")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["0.25"]
