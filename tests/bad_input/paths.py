"""Mistakes in paths, and in the spaces of layer orders."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from transformers import JambaConfig, PreTrainedConfig

from bad_input.mistakes import EXPERT, Case, Change, both, edit_recipe, recipe_file
from families import FAMILIES, MEMBERS, save_random
from fixtures import save_model

BUILD = ("build recipe.yaml --out out",)


def changed(**sections: object) -> Change:
    """Whole sections of the configuration replaced; None: left out."""

    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text()) | sections
        kept = {name: section for name, section in config.items() if section is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))

    return change


def order(optimizer: str = "nevergrad", **options: object) -> Change:
    space = {"kind": "layer_order", **options}
    return changed(space=space, optimizer={"kind": optimizer})


def path(*hops: dict) -> Change:
    """A recipe with this path behind its merge."""
    return both(recipe_file, edit_recipe(path={"outer": "expert0", "hops": list(hops)}))


def other_width(folder: Path) -> None:
    shutil.rmtree(folder / EXPERT)
    save_model(folder / EXPERT, 2, hidden_size=32)


# Which of its layers has which cache is computed from their places.
JAMBA = JambaConfig(
    **FAMILIES["Llama"][1],
    attn_layer_period=2,
    attn_layer_offset=1,
    num_experts=2,
    num_experts_per_tok=1,
    mamba_d_state=4,
    mamba_dt_rank=2,
    use_mamba_kernels=False,
)


def pool_of(config: PreTrainedConfig) -> Change:
    def change(folder: Path) -> None:
        for seed, name in enumerate(MEMBERS):
            shutil.rmtree(folder / "pool" / name)
            save_random(folder / "pool" / name, config, seed)

    return change


def phases(*spaces: dict) -> Change:
    return changed(
        space=None,
        search={"finalists": 2},
        phases=[
            {
                "name": f"phase{number}",
                "space": space,
                "optimizer": {"kind": "nevergrad"},
                "budget": {"candidates": 4},
            }
            for number, space in enumerate(spaces)
        ],
    )


CASES = {
    "an empty path": Case(path(), ("recipe.yaml", "path.hops", "at least 1 item"), BUILD),
    "a hop beyond the last layer": Case(
        path({"model": "expert0", "layer": 7}), ("'expert0' has no layer 7", "0 to 2"), BUILD
    ),
    "a hop of no model": Case(
        path({"model": "expert9", "layer": 0}), ("'expert9'", "expert1"), BUILD
    ),
    "a path longer than its limit": Case(
        order(max_hops=2), ("space.max_hops", "2 is less than the 3 layers", "'expert0'")
    ),
    "more different layers than the limit": Case(
        order(max_distinct=2), ("space.max_distinct", "2 is less than the 3 layers")
    ),
    "no hops allowed": Case(
        order(max_hops=0), ("space.max_hops", "greater than or equal to 2"), line="max_hops:"
    ),
    "no such encoding": Case(
        order(encoding="bits"), ("space.encoding", "'binary'", "'continuous'"), line="encoding:"
    ),
    "layers of no model": Case(
        order(models=["expert0", "expert2"]), ("space.models", "'expert2'", "expert1")
    ),
    "the winner of no phase": Case(
        order(models=["merged", "expert0"]), ("space.models", "'merged'")
    ),
    "CMA-ES on bits": Case(order("cma"), ("optimizer", "two values", "kind: nevergrad")),
    "no such algorithm": Case(
        changed(
            space={"kind": "layer_order"},
            optimizer={"kind": "nevergrad", "algorithm": "OnePlusTwo"},
        ),
        ("optimizer.algorithm", "'OnePlusTwo'", "OnePlusOne"),
        line="algorithm:",
    ),
    "hidden sizes that differ": Case(
        both(order(), other_width), ("'expert1'", "[12, 32]", "[12, 16]")
    ),
    "layers that cannot be run twice": Case(
        both(order(), pool_of(JAMBA)),
        ("'jamba' cannot be reordered", "with the cache"),
    ),
    "a phase behind a path": Case(
        phases({"kind": "layer_order"}, {"kind": "layer_order", "models": ["merged", "expert1"]}),
        ("phases", "'phase0'", "is a path", "put it last"),
    ),
    "more slices than layers": Case(
        changed(space={"kind": "slices", "slices": 9}, optimizer={"kind": "nevergrad"}),
        ("space.slices", "9 slices of 3 layers"),
    ),
    "every layer removed": Case(
        changed(space={"kind": "remove_layers", "remove": 3}, optimizer={"kind": "nevergrad"}),
        ("space.remove", "3 of 3 layers leave no path"),
    ),
    "layers swapped with itself": Case(
        changed(
            space={"kind": "layer_swap", "outer": "expert0", "inner": "expert0"},
            optimizer={"kind": "nevergrad"},
        ),
        ("space", "outer and inner are both 'expert0'"),
    ),
}
