"""Every method does what the engine expects of it."""

from __future__ import annotations

import pytest

from evomerge.methods import METHODS
from evomerge.methods.breadcrumbs import BreadcrumbsTiesConfig
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.della import DellaLinearConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.testing.methods import check_method

OPTIONS = [
    BreadcrumbsTiesConfig(normalize=True, vectors="same"),
    DareLinearConfig(normalize=True),
    DareLinearConfig(rescale="l1", vectors="same"),
    DareTiesConfig(normalize=True, rescale="none"),
    DellaLinearConfig(rescale="l1"),
    LinearConfig(normalize=False),
    ModelStockConfig(filter_wise=True),
    MultislerpConfig(base=True),
    NuslerpConfig(base=True),
    NuslerpConfig(flatten=False, row_wise=True),
    TaskArithmeticConfig(normalize=True),
    TiesConfig(election="count", normalize=False),
    TiesConfig(rescale="l1"),
    TiesConfig(scope="model", vectors="same"),
]


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_by_default(kind):
    check_method(METHODS[kind].config(kind=kind))


@pytest.mark.parametrize("config", OPTIONS, ids=repr)
def test_with_options(config):
    check_method(config)
