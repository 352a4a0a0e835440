"""Every space does what the search expects of it."""

from __future__ import annotations

import pytest

from evomerge.space import SPACES
from evomerge.testing.spaces import check_space
from parameter_spaces import open_three

CONFIGS = [
    {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
    {"kind": "parameter", "method": {"kind": "dare_ties"}, "groups": 2, "components": True},
    {
        "kind": "parameter",
        "methods": [{"kind": "ties"}, {"kind": "linear"}],
        "subset": True,
    },
    {"kind": "layer_order", "models": ["expert0", "expert1"]},
    {"kind": "layer_order", "models": ["expert0", "expert1"], "encoding": "continuous"},
    {"kind": "slices", "models": ["expert0", "expert1"]},
    {"kind": "remove_layers", "models": ["expert0"]},
    {"kind": "remove_layers", "models": ["expert0"], "remove": 2, "up_to": True},
    {"kind": "repeat_span", "models": ["expert0"]},
    {"kind": "layer_swap", "outer": "expert0", "inner": "expert1"},
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return open_three(tmp_path_factory.mktemp("pool"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["kind"])
def test_the_contract(pool, config):
    settings = SPACES[config["kind"]].config.model_validate(config)
    check_space(SPACES.make(settings, pool, None))
