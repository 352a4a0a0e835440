"""Pictures of layer orders: the paths of the best candidates, and how often each layer is used."""

from __future__ import annotations

from collections import Counter
from typing import Any

from evomerge.choice.results import Results
from evomerge.errors import EvomergeError
from evomerge.journal.state import RecipeOf
from evomerge.recipe import LayerPath
from evomerge.score import Approximation

NUM_SHOWN = 5
"""Paths that are drawn."""

COLORS = ("#3b6fb6", "#d1803b", "#4c9a6a", "#a4569c", "#b8a13a", "#6b7785")
"""By model, in the order in which the drawn paths name them; the last for all beyond."""


def path_pictures(results: Results, recipe_of: RecipeOf) -> dict[str, Any] | None:
    """What report.jinja draws of paths; None where no candidate has one.

    Args:
        results: The run's.
        recipe_of: Gives each candidate's recipe.

    Returns:
        "paths": candidates, best on search documents first, with score and hops (layer, scale,
        color); "models": names with their colors; "used": for each model the share of candidates
        that use each of its layers at least once; "num_candidates".
    """
    paths: dict[str, LayerPath] = {}
    for candidate in results.state.of_origin("asked", "enqueued"):
        try:
            path = recipe_of(candidate).path
        except EvomergeError:
            # Its file is gone; the others are shown.
            continue
        if path is not None:
            paths[candidate.id] = path
    if not paths:
        return None
    scored = [(e.value, name) for name in paths if (e := results.combined(name, "search"))]
    ranked = [name for _, name in sorted(scored, key=lambda pair: -pair[0])]
    chosen = results.state.decided.get("chosen")
    # A path that was enqueued and asked for as well is drawn once.
    distinct: dict[str, str] = {}
    for name in ranked:
        distinct.setdefault(results.state.candidates[name].recipe_sha256, name)
    shown = list(distinct.values())[:NUM_SHOWN]
    if chosen in paths and chosen not in shown:
        shown = [chosen, *shown[:-1]]
    models = list(dict.fromkeys(hop.model for path in paths.values() for hop in path.hops))
    models.sort()
    colors = {model: COLORS[min(n, len(COLORS) - 1)] for n, model in enumerate(models)}
    counts = Counter(
        layer for path in paths.values() for layer in {(hop.model, hop.layer) for hop in path.hops}
    )
    depth = 1 + max(layer for _, layer in counts)
    return {
        "paths": [_drawn(name, paths[name], results, colors, name == chosen) for name in shown],
        "models": colors,
        "used": {m: [counts[m, layer] / len(paths) for layer in range(depth)] for m in models},
        "num_candidates": len(paths),
    }


def _drawn(
    name: str, path: LayerPath, results: Results, colors: dict[str, str], is_chosen: bool
) -> dict[str, Any]:
    estimate = results.combined(name, "search")
    mark = "~" if isinstance(estimate, Approximation) else ""
    return {
        "candidate": name,
        "chosen": is_chosen,
        "score": "-" if estimate is None else f"{mark}{estimate.value:.3f}",
        "outer": path.outer,
        "hops": [
            {
                "layer": hop.layer,
                "scale": "" if hop.scale == 1.0 else f"{hop.scale:.2f}",
                "model": hop.model,
                "color": colors[hop.model],
            }
            for hop in path.hops
        ],
    }
