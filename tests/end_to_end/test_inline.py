"""A search in this process, without Ray: no package that it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import evomerge
from evomerge.errors import InputError
from fixtures import make_workspace
from missing_packages import WITHOUT

TESTS = Path(__file__).parents[1]

SEARCH = """
import evomerge

result = evomerge.run(sys.argv[1], sys.argv[2])
print(result.best)
"""


def test_a_candidate_that_fails_is_a_line_of_the_journal(workspace, tmp_path):
    # Weights that sum to zero give no model.
    evomerge.run(workspace(), tmp_path / "other")
    recipe = (tmp_path / "other/recipes/uniform.yaml").read_text()
    (tmp_path / "zero.yaml").write_text(recipe.replace(": 1.0", ": 0.0"))
    config = workspace(search={"start_from": ["zero.yaml"]})
    result = evomerge.run(config, tmp_path / "run")
    candidate = result.results.state.candidates["e0000"]
    assert candidate.failed is not None and "weights sum to zero" in candidate.failed


def test_ray_mlflow_plotly_and_prefect_need_not_be_there(tmp_path):
    config = make_workspace(
        tmp_path, workers={"kind": "inline"}, search={"budget": {"candidates": 3}}
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + SEARCH, str(config), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.html").exists()
    assert "plotly is not installed" in done.stderr
    assert (tmp_path / "run/report.html").stat().st_size < 1e6


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ({"num_actors": 2}, "num_actors is 2, and `kind: inline` has one worker"),
        ({"num_actors": 1, "address": "auto"}, "address is 'auto'"),
    ],
)
def test_what_ray_alone_can_do_is_refused(tmp_path, workers, words):
    config = make_workspace(tmp_path, workers={"kind": "inline", **workers})
    with pytest.raises(InputError, match=words):
        evomerge.run(config, tmp_path / "run")
