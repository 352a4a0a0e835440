"""Recipes that mergekit can express, by name: fields beside members, over two experts."""

from __future__ import annotations

from evomerge.methods.breadcrumbs import BreadcrumbsConfig
from evomerge.methods.dare import DareLinearConfig
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Hop, LayerPath, Part, Selector
from pools import NAMES


def merge(config, select=(), models=NAMES, **parameters) -> Part:
    values = {
        name: dict(zip(models, value, strict=True)) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }
    return Part(select=select, method=config, models=models, parameters=values)


def copy_of(model: str, *select: Selector) -> Part:
    return merge(LinearConfig(), select, (model,), weight=(1.0,))


def hops(*steps: tuple[str, int]) -> tuple[Hop, ...]:
    return tuple(Hop(model=model, layer=layer) for model, layer in steps)


MLP = Selector(components=("mlp",))
ENDS = Selector(layers=("outside",))
AVERAGE = merge(LinearConfig(), weight=(0.25, 0.5))

RECIPES = {
    "by layers and components": {
        "parts": (
            merge(TaskArithmeticConfig(), (Selector(layers=(1,)),), weight=(1.0, 0.5), scale=0.3),
            merge(TaskArithmeticConfig(), (MLP,), weight=(-0.2, 0.5)),
            merge(TaskArithmeticConfig(), weight=(0.3, 0.1)),
        )
    },
    "models that take no part everywhere": {
        "parts": (
            merge(TaskArithmeticConfig(), (MLP,), ("expert1",), weight=(0.7,)),
            merge(TaskArithmeticConfig(), weight=(0.3, 0.1)),
        )
    },
    "layers of one model and of both": {
        "parts": (
            copy_of("expert0", Selector(layers=(0, 3))),
            copy_of("base", ENDS),
            AVERAGE,
        )
    },
    "a base that takes no part": {"parts": (AVERAGE,)},
    "slerp": {
        "parts": (
            merge(SlerpConfig(), (Selector(layers=(2,), components=("attention",)),), t=0.9),
            merge(SlerpConfig(), t=0.2),
        )
    },
    "a path of members": {
        "path": LayerPath(outer="expert0", hops=hops(*[("expert0", n) for n in (0, 2, 3)]))
    },
    "a path whose ends are another's": {
        "path": LayerPath(outer="expert1", hops=hops(("expert0", 3), ("base", 0), ("base", 1)))
    },
    "a path through a merged model": {
        "parts": (AVERAGE,),
        "path": LayerPath(outer="merged", hops=hops(("merged", 3), ("expert1", 1), ("merged", 0))),
    },
    "a path of a merged model alone": {
        "parts": (merge(TaskArithmeticConfig(), weight=(0.3, 0.1)),),
        "path": LayerPath(outer="merged", hops=hops(("merged", 3), ("merged", 1), ("merged", 2))),
    },
    "another type": {"parts": (AVERAGE,), "dtype": "bfloat16"},
    "masks": {
        "parts": (
            merge(
                DareLinearConfig(rescale="l1", vectors="same"),
                weight=(0.5, 0.6),
                density=(0.5, 0.9),
            ),
        )
    },
    "ties of one expert, 1-D tensors whole": {
        "parts": (
            merge(TiesConfig(), models=("expert0",), weight=(0.7,), density=(0.4,), scale=0.8),
        )
    },
    "ties of two experts where nothing is 1-D": {
        "parts": (
            merge(TiesConfig(), (MLP,), weight=(0.7, 0.3), density=(0.4, 0.5)),
            merge(TiesConfig(), models=("expert1",), weight=(0.9,), density=(0.2,)),
        )
    },
    "ties that refuse to keep none": {
        "parts": (
            merge(
                TiesConfig(none_kept="refuse", vectors="same"),
                weight=(0.7, 0.3),
                density=(0.4, 0.1),
            ),
        )
    },
    "ties that keep one": {
        "parts": (
            merge(TiesConfig(vectors="same"), weight=(0.7, 0.3), density=(0.0, 0.002), scale=0.8),
        )
    },
    "breadcrumbs, 1-D tensors whole": {
        "parts": (
            merge(BreadcrumbsConfig(), weight=(0.7, 0.3), density=(0.4, 0.5), gamma=(0.02, 0.01)),
        )
    },
    "karcher": {"parts": (merge(KarcherConfig(), weight=(0.5, 0.5)),)},
    "nuslerp": {"parts": (merge(NuslerpConfig(), weight=(0.5, 0.2)),)},
    "nuslerp around the base": {"parts": (merge(NuslerpConfig(base=True), weight=(0.5, 0.2)),)},
    "multislerp with the base": {
        "parts": (merge(MultislerpConfig(), models=("expert1", "base"), weight=(0.5, 0.2)),)
    },
}
