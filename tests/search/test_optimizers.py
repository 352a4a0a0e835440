"""What a search does with what an optimizer declares, also one of another package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evomerge.config import Config, load_config
from evomerge.errors import InputError
from evomerge.search.check import check
from evomerge.search.setup import set_up
from fixtures import make_config, make_workspace

ROOT = Path(__file__).parents[2]

PLUGIN = '''
"""A package that brings an optimizer."""

from typing import ClassVar, Literal

from evomerge.optimize import BaseOptimizer, Done, OptimizerConfig


class OnceConfig(OptimizerConfig):
    takes_bits: ClassVar[bool] = False

    kind: Literal["once"] = "once"


class Once(BaseOptimizer):
    max_outstanding = 1234
    min_evaluations = 7
    plan = "list"
    note = "in a hurry"

    def describe(self):
        return "the start, once"

    def _start(self):
        self._rest = [self.box.start]

    def _propose(self):
        return self._rest.pop() if self._rest else Done("that was all")

    def _observe(self, point, outcome):
        pass


def add(registry):
    registry.add(OnceConfig, Once)
'''

CHECK = """
import sys
from pathlib import Path

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.search.check import check

for name in sys.argv[1:]:
    path = Path(name)
    try:
        print(*check(load_config(path), path.parent).lines, sep="\\n")
    except InputError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("optimizers")
    make_workspace(folder)
    return folder


def load(workspace: Path, **changes) -> Config:
    return load_config(make_config(workspace, **changes))


def lines_about(config: Config, workspace: Path) -> list[str]:
    """What `check` says of the optimizer."""
    lines = check(config, workspace).lines
    first = next(n for n, line in enumerate(lines) if line.startswith("optimizer:"))
    return [lines[first], *(line for line in lines[first + 1 : first + 2] if line[0] == " ")]


@pytest.mark.parametrize(
    "optimizer, lines",
    [
        ({"kind": "cma"}, ["optimizer: cma, 6 candidates in flight, told in order"]),
        (
            {"kind": "cma", "diagonal": True},
            ["optimizer: cma, diagonal covariance, 6 candidates in flight, told in order"],
        ),
        ({"kind": "random"}, ["optimizer: random, 8 candidates in flight, told in order"]),
        (
            {"kind": "map"},
            [
                "optimizer: map, 8 candidates in flight, told in order",
                "  a design of 6 points (a quadratic has 6 coefficients for each objective), then "
                "points of the front that is expected",
            ],
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_check_says_it(workspace, optimizer, lines):
    assert lines_about(load(workspace, optimizer=optimizer), workspace) == lines


def test_check_says_how_many_are_in_flight_where_they_are_told_as_they_finish(workspace):
    config = load(workspace, search={"budget": {"candidates": 12}, "tell": "as_finished"})
    told = "at most 12 candidates in flight, told as they finish"
    assert lines_about(config, workspace) == [f"optimizer: cma, {told}"]


def test_a_budget_must_pay_for_a_tree(workspace):
    config = load(workspace, optimizer={"kind": "nested_map", "evaluations_per_merge": 8})
    with pytest.raises(InputError) as error:
        check(config, workspace)
    assert str(error.value) == (
        "search.budget: 6 candidates, and the tree of nested_map has 11 points; give 11 or more"
    )


def test_one_of_another_package(workspace, tmp_path):
    metadata_dir = tmp_path / "once_merge-1.0.dist-info"
    metadata_dir.mkdir()
    (metadata_dir / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: once-merge\nVersion: 1.0\n"
    )
    (metadata_dir / "entry_points.txt").write_text("[evomerge.optimizers]\nonce = once_merge:add\n")
    (tmp_path / "once_merge.py").write_text(PLUGIN)
    values = yaml.safe_load(make_config(workspace, optimizer={"kind": "once"}).read_text())
    paths = []
    for name, changes in {
        "poor": {},
        "bits": {"space": {"kind": "layer_order"}},
        "good": {"search": {"budget": {"candidates": 7}}},
    }.items():
        paths.append(workspace / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(values | changes))
    ended = subprocess.run(
        [sys.executable, "-c", CHECK, *paths],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    poor, bits, *good = ended.stdout.splitlines()
    assert poor == (
        "search.budget: 6 candidates, and the list of once has 7 points; give 7 or more"
    )
    assert bits.startswith("optimizer: once moves numbers, and ")
    place = good.index("optimizer: once, in a hurry, 8 candidates in flight, told in order")
    assert good[place + 1] == "  the start, once"


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"space": {"kind": "layer_order"}}, ["nevergrad"]),
        ({"space": {"kind": "layer_order", "encoding": "continuous"}}, ["cma"]),
        ({}, ["cma"]),
        (
            {
                "space": None,
                "search": {"finalists": 2},
                "phases": [
                    {
                        "name": "weights",
                        "space": {"method": {"kind": "task_arithmetic"}},
                        "budget": {"candidates": 6},
                    },
                    {
                        "name": "layers",
                        "space": {"kind": "layer_order"},
                        "budget": {"candidates": 6},
                    },
                ],
            },
            ["cma", "nevergrad"],
        ),
    ],
)
def test_where_nobody_names_one_it_can_search_the_space(workspace, changes, kinds):
    values = yaml.safe_load(make_config(workspace).read_text())
    del values["optimizer"]
    (workspace / "unnamed.yaml").write_text(yaml.safe_dump(values | changes))
    config = load_config(workspace / "unnamed.yaml")
    setup = set_up(config, workspace)
    assert [phase.optimizer.kind for phase in setup.config.all_phases] == kinds
    assert set_up(setup.config, workspace).config == setup.config


def test_one_that_cannot_search_the_space_is_refused(workspace):
    path = make_config(workspace, optimizer={"kind": "cma"}, space={"kind": "layer_order"})
    values = yaml.safe_load(path.read_text())
    values["space"].pop("method")
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="optimizer: cma moves numbers"):
        set_up(load_config(path), workspace)
