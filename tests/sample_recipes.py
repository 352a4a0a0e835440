"""A recipe of two models, to be changed."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from evomerge.methods.linear import LinearConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Member, Part, Recipe, Selector

NAMES = ("math", "code")


def members(names=NAMES) -> dict[str, Member]:
    return {
        name: Member(sha256=f"{index:064x}", source=f"/models/{name}")
        for index, name in enumerate(("base", *names))
    }


def ties_part(weights=(0.25, 0.75), density=(0.5, 0.5), scale=1.0, **changes) -> Part:
    fields = {
        "select": (Selector(layers=("outside",)), Selector(layers=(0, 1), components=("mlp",))),
        "method": TiesConfig(normalize=False),
        "models": NAMES,
        "parameters": {
            "weight": dict(zip(NAMES, weights, strict=True)),
            "density": dict(zip(NAMES, density, strict=True)),
            "scale": scale,
        },
    }
    return Part(**(fields | changes))


def make_recipe(**changes) -> Recipe:
    rest = Part(method=LinearConfig(), models=("base",), parameters={"weight": {"base": 1.0}})
    fields = {
        "members": members(),
        "mask_seed": 5,
        "dtype": "bfloat16",
        "parts": (ties_part(), rest),
    }
    return Recipe(**(fields | changes))


def as_mapping(recipe: Recipe) -> dict:
    return json.loads(recipe.to_json())


def write(path: Path, data) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path
