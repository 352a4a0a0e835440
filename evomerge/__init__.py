"""Evolutionary model-merge search for language models.

Example:
    result = evomerge.run("config.yaml")
    result.best, result.candidates, result.front
    evomerge.resume(result.run_dir)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.config import Config, load_config
    from evomerge.models.from_recipe import build_recipe as build
    from evomerge.search import Result, resume, run
    from evomerge.search.alone import score_model as score

__all__ = ["Config", "Result", "build", "load_config", "resume", "run", "score"]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker that wants one room must not pay for all of them."""
    if name in ("Config", "load_config"):
        from evomerge import config

        return getattr(config, name)
    if name in ("Result", "resume", "run"):
        from evomerge import search

        return getattr(search, name)
    if name == "build":
        from evomerge.models.from_recipe import build_recipe

        return build_recipe
    if name == "score":
        from evomerge.search.alone import score_model

        return score_model
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")
