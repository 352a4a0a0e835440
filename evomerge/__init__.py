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
    from evomerge.search import Result, resume, run
    from evomerge.search.tools import build_recipe as build
    from evomerge.search.tools import score_model as score

__all__ = ["Config", "Result", "build", "load_config", "resume", "run", "score"]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker that wants one room must not pay for all of them."""
    if name in ("Config", "load_config"):
        from evomerge import config

        return getattr(config, name)
    if name in ("Result", "resume", "run"):
        from evomerge import search

        return getattr(search, name)
    if name in ("build", "score"):
        from evomerge.search import tools

        return {"build": tools.build_recipe, "score": tools.score_model}[name]
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")
