"""The whole configuration: the rooms' sections joined, and its YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from evomerge.errors import InputError, closest
from evomerge.files import write_text
from evomerge.optimize import OPTIMIZERS, OptimizerConfig
from evomerge.optimize.cma import CmaConfig
from evomerge.pool import PoolConfig
from evomerge.record import RecordConfig
from evomerge.registry import Registry, Section
from evomerge.score import ScoreSection
from evomerge.space import SpaceSection
from evomerge.workers import WorkersConfig

SCHEMA_VERSION = 1
CONFIG_FILE = "config.yaml"

SIMPLE = "search"
"""The name of the one phase of a search without phases."""


class BudgetConfig(Section):
    """When the search stage ends: at whichever of these comes first.

    Attributes:
        candidates: Candidates told to the optimizer.
        documents: Documents scored.
        seconds: Time spent searching, over all sessions of the run.
        deadline: A point in time, ISO 8601; local time unless it says otherwise.
        target: A combined score on search documents that is good enough.
        patience: Candidates without a new best.
    """

    candidates: int | None = Field(default=None, gt=0)
    documents: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0.0)
    deadline: datetime | None = None
    target: float | None = None
    patience: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        ends = (self.candidates, self.documents, self.seconds, self.deadline, self.patience)
        if all(end is None for end in ends):
            raise ValueError(
                "the search has no end; give candidates, documents, seconds, deadline or patience"
            )
        return self


class PhaseConfig(Section):
    """One of several searches of a run, one after the other.

    Attributes:
        name: Names its stages.
        space: What may vary. In a later phase the model called "merged" is the winner, on
            validation, of the phase before.
        optimizer: What proposes candidates.
        budget: When it ends.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    space: SpaceSection
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = CmaConfig()
    budget: BudgetConfig


class SearchConfig(Section):
    """The stages.

    Attributes:
        budget: When the search stage ends; with phases each has its own.
        finalists: Best candidates on search documents that validation ranks; by default 10, and 30
            of a search for a front.
        task_arithmetic_scales: Baselines: equal weights at these scales.
        start_from: Recipe files or mergekit configurations to try first, relative to the
            configuration's folder.
        landmarks: Whether base, experts and their average, as far as the space has them, are the
            first candidates of every optimizer; some ask for them anyway.
        export: Write the chosen model as a checkpoint into the run folder at the end.
    """

    budget: BudgetConfig | None = None
    finalists: int | None = Field(default=None, ge=1)
    task_arithmetic_scales: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0)
    start_from: tuple[str, ...] = ()
    landmarks: bool = False
    export: bool = False


class ResolvedConfig(Section):
    """What a run found out before it began; a resumed run must find the same.

    Attributes:
        pool_sha256: Hash of each model.
        documents_sha256: Hash of the document ids of every split.
        batch_tokens: Tokens of a batch.
        versions: Of the packages that numbers depend on.
    """

    pool_sha256: dict[str, str]
    documents_sha256: str
    batch_tokens: int
    versions: dict[str, str]


class Config(Section):
    """One search.

    Attributes:
        schema_version: Of this format.
        name: Of the search; names its run folder and MLflow's experiment.
        seed: Of every random number of the search itself.
        pool: Which models.
        score: What is measured on which documents.
        space: What may vary.
        optimizer: What proposes candidates.
        phases: Several searches one after the other, in the place of `space`, `optimizer` and
            `search.budget`.
        search: Stages and budget.
        workers: Where the work is done.
        record: MLflow.
        resolved: Filled in when a run starts.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0)
    pool: PoolConfig
    score: ScoreSection
    space: SpaceSection | None = None
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = CmaConfig()
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
            ("optimizer", self.optimizer != CmaConfig()),
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


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: A YAML file.
        overrides: "a.b=value" each, with the value in YAML.

    Raises:
        InputError: The file, with the line of the wrong field, what was expected and the nearest
            valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot read the configuration: {reason}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping; valid: {', '.join(Config.model_fields)}")
    for override in overrides:
        _override(data, override)
    version = data.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: configuration has schema_version {version}, this release reads up to "
            f"{SCHEMA_VERSION}: install a newer evomerge"
        )
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise InputError(_explain(path, node, error)) from None


def _override(data: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    steps = name.split(".")
    if not equals or not all(steps):
        raise InputError(f"--set {override!r}: expected a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {override!r}: the value is not YAML") from None
    inner: Any = data
    for index, step in enumerate(steps):
        key: Any = _position(override, step, inner) if isinstance(inner, list) else step
        if index == len(steps) - 1:
            inner[key] = value
            return
        if isinstance(inner, dict):
            inner.setdefault(key, {})
        inner = inner[key]
        if not isinstance(inner, dict | list):
            raise InputError(f"--set {override!r}: {step!r} is no section")


def _position(override: str, step: str, items: list[Any]) -> int:
    if not step.isdecimal() or int(step) >= len(items):
        raise InputError(
            f"--set {override!r}: {step!r} is no entry of a list of {len(items)}; valid: "
            + (f"0 to {len(items) - 1}" if items else "none")
        )
    return int(step)


def _explain(path: Path, node: Any, error: ValidationError) -> str:
    """At most five lines: up to two mistakes, each with its line, and how many more there are."""
    mistakes = error.errors()
    lines = []
    for mistake in mistakes[:2]:
        steps, line = _locate(node, mistake["loc"], mistake["type"])
        where = f"{path}:{line}: {'.'.join(map(str, steps)) or 'the configuration'}"
        lines.append(f"{where}: {_message(mistake)}")
    if len(mistakes) > 2:
        lines.append(f"({len(mistakes) - 2} more)")
    return "\n".join(lines)


def _message(mistake: Any) -> str:
    given = mistake.get("input")
    if mistake["type"] == "extra_forbidden":
        return f"unknown field; {closest(str(mistake['loc'][-1]), _fields_at(mistake['loc']))}"
    if mistake["type"] == "missing":
        return "this field is required"
    if mistake["type"] == "union_tag_invalid":
        tag = str(mistake["ctx"]["tag"])
        expected = [word.strip(" '") for word in mistake["ctx"]["expected_tags"].split(",")]
        return f"no kind {tag!r}; {closest(tag, expected)}"
    if mistake["type"] == "union_tag_not_found":
        return "`kind` is missing"
    message = mistake["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(given, dict | list | BaseModel) else f", got {given!r}"
    return f"{message[0].lower()}{message[1:]}{shown}"


def _locate(node: Any, loc: tuple[int | str, ...], kind: str) -> tuple[list[int | str], int]:
    """The steps of a location that stand in the file, and the line of the last of them.

    A field that is missing does not stand there either, and is its last step; what a whole
    section's check refuses ends with the section's kind.
    """
    steps: list[int | str] = []
    line = node.start_mark.line + 1 if node is not None else 1
    for step in loc:
        inner = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    inner, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and step in range(len(node.value)):
            inner = node.value[int(step)]
            line = inner.start_mark.line + 1
        if inner is not None:
            node = inner
            steps.append(step)
        elif step == loc[-1] and kind != "value_error":
            steps.append(step)
    return steps, line


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """Names that are valid beside an unknown field."""
    model: Any = Config
    pending: Registry[Any] | None = None
    for step in loc[:-1]:
        if pending is not None:
            if isinstance(step, str) and step in list(pending):
                model, pending = pending[step].config, None
            continue
        if isinstance(step, int) or not hasattr(model, "model_fields"):
            continue
        field = model.model_fields.get(step)
        if field is None:
            continue
        pending = _registry_in((field.annotation, *field.metadata))
        if pending is None:
            model = _model_in(field.annotation) or model
    return list(getattr(model, "model_fields", {}))


def _registry_in(annotations: tuple[Any, ...]) -> Registry[Any] | None:
    """The registry that chooses a field's model, also where the field is optional."""
    for annotation in annotations:
        if isinstance(annotation, Registry):
            return annotation
        inner = getattr(annotation, "__metadata__", ()) or get_args(annotation)
        found = _registry_in(tuple(inner))
        if found is not None:
            return found
    return None


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
