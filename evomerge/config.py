"""The whole configuration: the rooms' sections joined, and its YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from evomerge.backends import Batching
from evomerge.errors import InputError
from evomerge.fidelity.config import FidelityConfig, FullConfig
from evomerge.files import write_text
from evomerge.mistakes import Override, explain, first_mistake
from evomerge.optimize import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerConfig
from evomerge.pool import PoolConfig
from evomerge.reading import compose_and_load, read_text
from evomerge.record import RecordConfig
from evomerge.registry import Section
from evomerge.score import ScoreSection
from evomerge.space import SpaceSection
from evomerge.workers import WorkersConfig

SCHEMA_VERSION = 1

SIMPLE = "search"
"""The name of the one phase of a search without phases."""


class BudgetConfig(Section):
    """When the search stage ends: at whichever of these comes first.

    Attributes:
        candidates: How many candidates are scored and told to the optimizer.
        documents: How many documents are scored; a candidate that was begun gets all of its own.
        tokens: How many tokens are run, generated ones too, for candidates that were told.
        seconds: How long the search takes, over all sessions of the run.
        deadline: The search ends at this time (ISO 8601; local time unless it names a zone).
        target: The search ends once the best combined score on search documents is this good.
        patience: The search ends after so many candidates without a new best.
    """

    candidates: int | None = Field(default=None, gt=0)
    documents: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0.0)
    deadline: datetime | None = None
    target: float | None = None
    patience: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        counts = (self.candidates, self.documents, self.tokens)
        if all(end is None for end in (*counts, self.seconds, self.deadline, self.patience)):
            raise ValueError(
                "the search has no end; give candidates, documents, tokens, seconds, deadline or "
                "patience"
            )
        return self


class PhaseConfig(Section):
    """One of several searches of a run, one after the other.

    Attributes:
        name: The name of the phase and of its stages.
        space: What may vary. In a later phase the model called "merged" is the winner, on
            validation, of the phase before.
        optimizer: What proposes candidates. By default CMA-ES, and `nevergrad` where layers are
            taken or left, or chosen.
        budget: When the phase ends.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    space: SpaceSection
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = DEFAULT_OPTIMIZER
    budget: BudgetConfig


class SearchConfig(Section):
    """The stages.

    Attributes:
        budget: When the search stage ends; with phases each has its own.
        finalists: Best candidates on search documents that validation ranks; by default 10, and 30
            of a search for a front.
        task_arithmetic_scales: Baselines: equal weights at these scales.
        baselines: What the search is compared with besides: "greedy_soup", the average of experts
            as long as one more helps on validation documents; "random", as many candidates again,
            drawn at random, scored and chosen in the same way.
        start_from: Recipe files or mergekit configurations to try first, relative to the
            configuration's folder.
        start_from_run: Run folders of earlier searches of the same models, whose best candidates
            are tried first: of one model five at most, of a front ten. The run's search and
            validation documents may not be holdout documents here.
        tell: "in_order": the optimizer learns of candidates in the order in which they were asked,
            so that a search does not depend on how many actors there are and how fast; the default.
            "as_finished": of each when it is scored; so go on runs of releases that had no other.
        in_flight: How many candidates are under way at a time where they are told in order; by
            default the least of 8, what the optimizer takes, and its population.
        landmarks: Whether base, experts and their average, as far as the space has them, are the
            first candidates of every optimizer; some ask for them anyway.
        explain: Score the chosen model without each of its experts, layer groups and differences of
            numbers, on validation documents, and look for a simpler model that is as good.
        export: Write the chosen model as a checkpoint into the run folder at the end.
        fidelity: On how many search documents a candidate is scored; by default on all.
    """

    budget: BudgetConfig | None = None
    finalists: int | None = Field(default=None, ge=1)
    task_arithmetic_scales: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0)
    baselines: tuple[Literal["greedy_soup", "random"], ...] = ()
    start_from: tuple[str, ...] = ()
    start_from_run: tuple[str, ...] = ()
    tell: Literal["in_order", "as_finished"] | None = None
    in_flight: int | None = Field(default=None, ge=1)
    landmarks: bool = False
    explain: bool = False
    export: bool = False
    fidelity: FidelityConfig = FullConfig()


class ResolvedConfig(Section):
    """What a run found out before it began; a resumed run must find the same.

    Attributes:
        pool_sha256: Hash of each model.
        documents_sha256: Hash of the document ids of every split.
        batch_tokens: Tokens of a batch.
        batching: How requests are batched; none where lm-eval's own model answers them.
        chat_template_sha256: Of the chat template's text; none without one.
        prompts_sha256: Of all documents and prompts.
        tasks_sha256: Of each task's settings and functions, by task.
        versions: Of the packages that numbers depend on.
    """

    pool_sha256: dict[str, str]
    documents_sha256: str
    batch_tokens: int
    batching: Batching | None = None
    chat_template_sha256: str | None = None
    prompts_sha256: str | None = None
    tasks_sha256: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str]


class Config(Section):
    """One search.

    Attributes:
        schema_version: The version of this format.
        name: The name of the search, of its run folder, and of MLflow's experiment.
        seed: The seed of every random number of the search itself.
        pool: The models that may be combined.
        score: What is measured, and on which documents.
        space: What may vary from merge to merge.
        optimizer: What proposes candidates. By default CMA-ES, and `nevergrad` where layers are
            taken or left, or chosen.
        phases: Several searches one after the other, in the place of `space`, `optimizer` and
            `search.budget`.
        search: The budget, and what the stages of the search do.
        workers: Where the work is done.
        record: How the run is recorded in MLflow.
        resolved: Filled in when a run starts.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0)
    pool: PoolConfig
    score: ScoreSection
    space: SpaceSection | None = None
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = DEFAULT_OPTIMIZER
    phases: tuple[PhaseConfig, ...] = ()
    search: SearchConfig
    workers: WorkersConfig = WorkersConfig()
    record: RecordConfig = RecordConfig()
    resolved: ResolvedConfig | None = None

    @property
    def all_phases(self) -> tuple[PhaseConfig, ...]:
        """The phases; of a simple search the one that its sections make."""
        if self.phases:
            return self.phases
        assert self.space is not None and self.search.budget is not None
        return (
            PhaseConfig(
                name=SIMPLE,
                space=self.space,
                optimizer=self.optimizer,
                budget=self.search.budget,
            ),
        )

    @model_validator(mode="after")
    def _searches_something(self) -> Self:
        if not self.phases:
            if self.space is None:
                raise ValueError("space: this field is required, or phases in its place")
            if self.search.budget is None:
                raise ValueError("search.budget: this field is required")
            return self
        for name, given in (
            ("space", self.space is not None),
            ("optimizer", self.optimizer != DEFAULT_OPTIMIZER),
            ("search.budget", self.search.budget is not None),
        ):
            if given:
                raise ValueError(f"{name}: stands in each phase where there are phases")
        names = [phase.name for phase in self.phases]
        if SIMPLE in names:
            raise ValueError(f"phases: {SIMPLE!r} is the name of a stage; take another")
        if len(set(names)) < len(names):
            raise ValueError(f"phases: two have one name: {', '.join(names)}")
        return self

    def to_yaml(self) -> str:
        """YAML that `load_config` reads back as an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def write(self, path: Path) -> None:
        """Write the YAML file atomically."""
        write_text(path, self.to_yaml())


def json_schema() -> dict[str, Any]:
    """JSON schema of a configuration file, with what other packages add, for editors."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: A YAML file.
        overrides: "a.b=value" each, with the value in YAML.

    Raises:
        InputError: The file with the line of the wrong field, or the override, what was expected
            and the nearest valid name.
    """
    node, data = compose_and_load(read_text(path, "the configuration"), path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping; valid: {', '.join(Config.model_fields)}")
    for field, other in (("members", "a recipe"), ("merge_method", "a mergekit configuration")):
        if field in data and "pool" not in data:
            raise InputError(
                f"{path}: this is {other}, not the configuration of a search\n"
                "valid: a file with pool, space, score and search; `evomerge init` writes one"
            )
    version = data.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: configuration has schema_version {version}, this release reads up to "
            f"{SCHEMA_VERSION}: install a newer evomerge"
        )
    changes = [Override.read(text) for text in overrides]
    try:
        return Config.model_validate(reduce(lambda made, change: change.apply(made), changes, data))
    except ValidationError as error:
        raise InputError(explain(Config, path, node, data, changes, error)) from None


def with_overrides(config: Config, overrides: Sequence[str], given_as: str = "overrides") -> Config:
    """A configuration with changes.

    Args:
        config: The configuration.
        overrides: "a.b=value" each, with the value in YAML.
        given_as: What people call them.

    Raises:
        InputError: One of them is wrong.
    """
    data = config.model_dump(mode="json", exclude_unset=True)
    changes = [Override.read(text) for text in overrides]
    data = reduce(lambda made, change: change.apply(made), changes, data)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{given_as}: {first_mistake(Config, data, error)}") from None
