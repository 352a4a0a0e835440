"""A single model scored by a configuration's tasks, without a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from evomerge.config import BudgetConfig, Config, SearchConfig, load_config
from evomerge.errors import InputError
from evomerge.methods.linear import LinearConfig
from evomerge.models.from_recipe import open_recipe
from evomerge.models.path_proof import prove_paths
from evomerge.objectives import GroupMetric, Measure, MetricConfig
from evomerge.optimize import DEFAULT_OPTIMIZER
from evomerge.pool import ModelConfig, PoolConfig, is_model
from evomerge.recipe import Recipe
from evomerge.score import Estimate, Split, estimates_of
from evomerge.score.faults import told_as
from evomerge.search.setup import set_up
from evomerge.space import ParameterSpaceConfig, recipes
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker

logger = logging.getLogger(__name__)

Scores = dict[str, dict[str, Any]]
"""value, standard_error and num_documents by objective."""


def score_model(
    model: str, config_path: Path, split: str, *, ignores_unknown: bool = False
) -> Scores:
    """Score a model folder, GGUF file, hub id or recipe on a split of a configuration's tasks.

    Args:
        model: Folder, GGUF file, hub id, or recipe file.
        config_path: Says what is measured, on which documents.
        split: "search" or "validation"; holdout is opened only for a run's chosen models.
        ignores_unknown: See `build_recipe`.

    Raises:
        InputError: The split is not one of these, or something cannot be opened.
    """
    check_split(split, ("search", "validation"))
    config = load_config(config_path)
    path = Path(model)
    if path.is_file() and not is_model(path):
        members, recipe = open_recipe(path, ignores_unknown=ignores_unknown)
        if recipe.path is not None:
            prove_paths(members)
        rules = {"component_rules": recipe.schema_version}
        pool = members.resolved().model_copy(update=rules)
    else:
        recipe = None
        # Relative to where the person is, not to the configuration.
        source = str(path.resolve()) if is_model(path) else model
        pool = PoolConfig(
            base=ModelConfig(source=source), experts=(ModelConfig(source=source, name="model"),)
        )
    return _score(config, config_path.parent, pool, recipe, cast(Split, split))


def check_split(split: str, valid: tuple[str, ...]) -> None:
    """Refuse a split that may not be scored.

    Raises:
        InputError: It is none of those that are valid.
    """
    if split not in valid:
        more = ""
        if split == "holdout":
            more = "\nholdout only as `score --run RUN_DIR --candidate ID --split holdout`"
        raise InputError(f"--split {split!r}; valid: {', '.join(valid)}{more}")


def _measuring_alone(config: Config, pool: PoolConfig) -> Config:
    """The configuration for other models: what it searches, and from where, is of its own.

    What objectives are made of is measured, and not what compares with models of the pool.
    """
    entries = config.score.objectives
    objectives = []
    for metric in dict.fromkeys(metric for entry in entries for metric in entry.metrics):
        owners = [entry for entry in entries if metric in entry.metrics]
        plain = [o for o in owners if isinstance(o, MetricConfig) and not o.monitor]
        is_monitor = all(owner.monitor for owner in owners)
        objectives += plain[:1] or [MetricConfig(**metric.model_dump(), monitor=is_monitor)]
    left_out = [entry.name or entry.default_name for entry in entries if entry.kind != "metric"]
    if left_out:
        logger.warning("left out: %s, which only candidates of a search have", ", ".join(left_out))
    return config.model_copy(
        update={
            "score": config.score.model_copy(update={"objectives": tuple(objectives)}),
            "pool": pool,
            "space": ParameterSpaceConfig(method=LinearConfig()),
            "optimizer": DEFAULT_OPTIMIZER,
            "phases": (),
            "search": SearchConfig(budget=BudgetConfig(candidates=1)),
        }
    )


def _score(
    config: Config,
    tasks_dir: Path,
    pool: PoolConfig,
    recipe: Recipe | None,
    split: Split,
) -> Scores:
    """Score in this process: no Ray for a single model."""
    if recipe is not None and recipe.chat_template is not None and config.score.apply_chat_template:
        raise InputError(
            "the recipe has a chat template of its own, and score.apply_chat_template would use "
            "the base's: build the recipe and score the folder"
        )
    setup = set_up(_measuring_alone(config, pool), tasks_dir)
    if recipe is None:
        recipe = recipes.member(setup.pool, "base")
    spec = setup.worker_spec()
    blocks = tuple(enumerate(setup.blocks(split)))
    job = Job("model", recipe.to_json(), split, blocks, len(blocks))
    with told_as(InputError, "the model cannot be scored"):
        scores = estimates_of(MergeWorker(spec).evaluate(job).moments)
    groups = {}
    for name, kind in setup.tasks.kinds.items():
        if isinstance(kind, GroupMetric):
            measured = kind.measure(recipe, setup.pool, _Means(scores))
            parts = [(term.coefficient, scores[term.measure]) for term in measured.terms]
            error = math.sqrt(sum((c * e.standard_error) ** 2 for c, e in parts))
            size = sum(e.num_documents for _, e in parts)
            groups[name] = Estimate(measured.value, error, size)
    return {name: asdict(estimate) for name, estimate in {**groups, **scores}.items()}


class _Means:
    """The `Rows` of a model by the means of its documents, which a group's value follows from."""

    def __init__(self, scores: Mapping[str, Estimate]) -> None:
        self._scores = scores

    def values(self, measure: Measure) -> Mapping[int, float]:
        """See `Rows`."""
        raise NotImplementedError

    def mean(self, measure: Measure) -> float:
        """See `Rows`."""
        return self._scores[measure.name].value

    def count(self, measure: Measure) -> int:
        """See `Rows`."""
        return self._scores[measure.name].num_documents

    def of(self, model: str) -> _Means:
        """See `Rows`."""
        raise NotImplementedError
