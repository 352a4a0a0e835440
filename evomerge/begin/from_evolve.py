"""A mergekit-evolve configuration as one of ours, with a comment at each decision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evomerge.begin.commented import to_commented_yaml
from evomerge.begin.new_search import name_of, require_new
from evomerge.begin.sources import entries_of, expanded, source_of
from evomerge.config import Config
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.mergekit.models import is_same, read_model
from evomerge.mergekit.rules import RULES, Rule, rule_of
from evomerge.mergekit.values import Number
from evomerge.mergekit.where import Where
from evomerge.mistakes import first_mistake
from evomerge.pool.foreign_code import CONFIG_FILE
from evomerge.reading import compose_and_load, read_json, read_text

GENOME = (
    "models",
    "merge_method",
    "base_model",
    "tokenizer_source",
    "layer_granularity",
    "normalize",
    "allow_negative_weights",
    "smooth",
    "filters",
)

TASK = ("name", "weight", "metric")

KEYS = (
    "genome",
    "tasks",
    "limit",
    "num_fewshot",
    "shuffle",
    "random_init",
    "apply_chat_template",
    "fewshot_as_multiturn",
)

METRIC = "acc,none"
"""Where a task says none."""

CANDIDATES = 100
"""Evaluations, where its command line says none."""

NORMALIZED = ("linear", "ties", "dare_ties")
"""Methods whose weights mergekit-evolve normalizes where nothing is said."""

COMPONENTS = frozenset({"self_attn", "attn", "attention", "mlp"})
"""Parts of names that are components here."""


def convert_search(path: Path, out: Path, *, ignores_unknown: bool = False) -> None:
    """Write a mergekit-evolve configuration as one of ours.

    Args:
        path: The file; folders that it names are relative to the current one.
        out: A new YAML file; folders in it are relative to its own.
        ignores_unknown: Whether unknown keys are passed over, with a warning.

    Raises:
        InputError: The file cannot be read, says what cannot be said here, or names a folder that
            is not there; or there is a file already.
    """
    require_new(out)
    node, data = compose_and_load(read_text(path, "the configuration"), path)
    converted = _Converted(Where(path, (), node, ignores_unknown, can_ignore=True), out)
    converted.read(data)
    # What is written can be read.
    try:
        Config.model_validate(converted.data)
    except ValidationError as error:
        said = first_mistake(Config, converted.data, error)
        raise InputError(f"{path}: what it means is no search here: {said}") from None
    text = to_commented_yaml(
        f"Made from {path.name}, a mergekit-evolve configuration, by `evomerge convert`.\n"
        f"`evomerge check {out.name}` says what the search would do, and `evomerge search "
        f"{out.name}` runs it.",
        converted.data,
        converted.comments,
    )
    write_text(out, text)


class _Converted:
    """A configuration that grows, and what stands above its keys."""

    def __init__(self, where: Where, out: Path) -> None:
        self.where = where
        self.folder = out.parent
        self.data: dict[str, Any] = {"name": name_of(out), "seed": 1}
        self.comments = {"seed": "The same seed finds the same models."}

    def read(self, data: Any) -> None:
        data = self.where.mapping(data, KEYS)
        genome = (self.where / "genome").mapping(data.get("genome"), GENOME)
        method = self.where / "genome" / "merge_method"
        rule = rule_of(genome.get("merge_method"), method)
        self._pool(genome, rule)
        self._score(data)
        self._space(genome, rule)
        self.data["optimizer"] = {"kind": "cma"}
        self.data["search"] = {"budget": {"candidates": CANDIDATES}}
        self.comments["search.budget"] = (
            "--max-fevals of mergekit-evolve's command line. `seconds` beside it is --timeout."
        )
        if data.get("random_init"):
            self.comments["optimizer"] = (
                "random_init has no counterpart: CMA-ES begins in the middle of its ranges."
            )

    def _pool(self, genome: Mapping[str, Any], rule: Rule) -> None:
        where = self.where / "genome"
        models = [
            _whole(model, where / "models" / number)
            for number, model in enumerate((where / "models").list(genome.get("models")))
        ]
        if genome.get("base_model") is None:
            base = models[0]
            self.comments["pool.base"] = (
                "No base_model was given. The first model gives configuration and tokenizer."
            )
        else:
            base = _whole(genome["base_model"], where / "base_model")
            if rule.base != "input":
                # Task vectors, and a curve's other end, are those of the others.
                models = [model for model in models if not is_same(model, base)]
        pool: dict[str, Any] = {
            "base": self._entry(base),
            "experts": [self._entry(model, entry) for model, entry in self._named(models)],
        }
        source = genome.get("tokenizer_source")
        if source == "union":
            pool["vocabulary"] = {"tokens": "union", "missing": "base"}
        elif source not in (None, "base", base):
            raise InputError(
                f"{where / 'tokenizer_source'}: got {source!r}; merged models have the base's "
                "tokens, or the union\nvalid: base, union"
            )
        self.data["pool"] = pool
        self._num_layers = _num_layers(expanded(base))

    def _named(self, models: list[str]) -> Iterator[tuple[str, Any]]:
        """Models with what a configuration calls them."""
        entries = entries_of([model.partition("@")[0] for model in models], self.folder)
        return zip(models, entries, strict=True)

    def _entry(self, model: str, entry: Any = None) -> Any:
        """A model as a configuration has it, with its revision where it has one."""
        source, _, revision = model.partition("@")
        entry = entry or source_of(source, self.folder)
        if not revision:
            return entry
        known = entry if isinstance(entry, dict) else {"source": entry}
        return {**known, "revision": revision}

    def _score(self, data: Mapping[str, Any]) -> None:
        objectives = []
        for number, item in enumerate((self.where / "tasks").list(data.get("tasks"))):
            place = self.where / "tasks" / number
            task = place.mapping({"name": item} if isinstance(item, str) else item, TASK)
            if not isinstance(task.get("name"), str):
                raise InputError(f"{place / 'name'}: got {task.get('name')!r}, expected a task")
            metric, _, filtered = str(task.get("metric", METRIC)).partition(",")
            objective: dict[str, Any] = {"task": task["name"], "metric": metric}
            if filtered not in ("", "none"):
                objective["filter"] = filtered
            weight = Number().read(task.get("weight", 1.0), place / "weight")
            if weight <= 0.0:
                raise InputError(
                    f"{place / 'weight'}: got {weight:g}, expected a number above 0; what is "
                    "better is known by the metric, and `higher_is_better: false` of an objective "
                    "turns it"
                )
            objectives.append(objective | {"preference": weight})
        score: dict[str, Any] = {"include_path": [], "objectives": objectives}
        self.comments["score.include_path"] = (
            "Folders with task files: --task-search-path of mergekit-evolve's command line."
        )
        self.comments["score.objectives"] = (
            "A search improves the mean of these, weighted by their preferences."
        )
        splits: dict[str, int] = {"seed": 0}
        if data.get("limit") is not None:
            limit = Number(1.0, is_whole=True).read(data["limit"], self.where / "limit")
            splits = {"search": int(limit), **splits}
        score["splits"] = splits
        self.comments["score.splits"] = (
            "limit gives the search documents, drawn by the seed (shuffle has no other "
            "counterpart). The finalists are ranked on validation documents, and what is reported "
            "is of holdout documents: mergekit-evolve has neither."
        )
        if data.get("num_fewshot") is not None:
            score["num_fewshot"] = data["num_fewshot"]
        has_chats = data.get("apply_chat_template")
        score["apply_chat_template"] = True if has_chats is None else has_chats
        self.comments["score.apply_chat_template"] = (
            "Prompts are wrapped in the base's chat template, as in mergekit-evolve where nothing "
            "is said. false: plain prompts, for a base without a template."
        )
        if score["apply_chat_template"] and data.get("fewshot_as_multiturn") is not None:
            score["fewshot_as_multiturn"] = data["fewshot_as_multiturn"]
        self.data["score"] = score

    def _space(self, genome: Mapping[str, Any], rule: Rule) -> None:
        kind = genome["merge_method"]
        values = {
            keyword.name: keyword.default
            for keyword in rule.keywords.values()
            if keyword.scope == "shared" and keyword.default is not None
        }
        if "normalize" in rule.keywords:
            given = genome.get("normalize")
            values["normalize"] = kind in NORMALIZED if given is None else bool(given)
        method = rule.config(values, genome.get("base_model") is not None)
        # Which of equal magnitudes are kept makes builds slow, and no candidate better.
        options = method.model_dump(mode="json", exclude={"kind", "equal"})
        space: dict[str, Any] = {
            "kind": "parameter",
            "method": {"kind": rule.kind, **options},
        }
        self.comments["space.method"] = f"mergekit's {kind}, with its options as they are there."
        self._groups(genome, space)
        vary = _ranges(rule.kind, negative=bool(genome.get("allow_negative_weights")))
        if vary:
            space["vary"] = vary
            self.comments["space.vary"] = (
                "The ranges that are searched; a mergekit-evolve configuration says of them "
                "whether weights may be negative, and nothing else."
            )
        self.data["space"] = space

    def _groups(self, genome: Mapping[str, Any], space: dict[str, Any]) -> None:
        where = self.where / "genome"
        granularity, layers = genome.get("layer_granularity"), self._num_layers
        count: int | None = None
        if granularity:
            size = int(Number(1.0, is_whole=True).read(granularity, where / "layer_granularity"))
            said = f"layer_granularity {size}: one set of numbers for {size} layers"
            if layers is None:
                self.comments["space.groups"] = (
                    f"{said}. The base is not on this machine: give its number of layers divided "
                    f"by {size} in the place of 4."
                )
                count = 4
            elif layers % size:
                raise InputError(
                    f"{where / 'layer_granularity'}: {size} does not divide the base's {layers} "
                    "layers"
                )
            else:
                self.comments["space.groups"] = f"{said}, and the base has {layers}."
                count = layers // size
        if genome.get("smooth") and count is not None and count > 1:
            space["over_depth"] = dict.fromkeys(_numbers_of(space["method"]["kind"]), count)
            said = "smooth: numbers follow the depth, with straight lines between so many points."
            sets = self.comments.pop("space.groups", "")
            self.comments["space.over_depth"] = f"{said} {sets}".strip()
            count = None
        filters = self._filters(genome.get("filters"))
        if not filters:
            space["groups"] = count or "whole"
        elif COMPONENTS.issuperset(filters):
            space |= {"groups": count or "whole", "components": True}
            self.comments["space.components"] = (
                f"filters {', '.join(filters)}: attention, MLP and norms of a group apart, and "
                "embedding and head by themselves."
            )
        else:
            self._groups_by_name(filters, count, space)

    def _filters(self, given: Any) -> list[str]:
        if not given:
            return []
        where = self.where / "genome" / "filters"
        for number, name in enumerate(where.list(given)):
            if not isinstance(name, str) or not name:
                raise InputError(f"{where / number}: got {name!r}, expected a part of names")
        return list(dict.fromkeys(given))

    def _groups_by_name(self, filters: list[str], count: int | None, space: dict[str, Any]) -> None:
        """Groups of layers, in each of which every filter has its own."""
        layers = self._num_layers
        if count is not None and layers is None:
            raise InputError(
                f"{self.where / 'genome' / 'filters'}: groups of layers and of names need the "
                "base's number of layers, and the base is not on this machine\n"
                "fetch it first, or leave out layer_granularity"
            )
        spans: list[tuple[str, dict[str, Any]]] = [("", {})]
        if count is not None and layers is not None:
            size = layers // count
            spans = [
                (f"{n}-", {"layers": list(range(n * size, (n + 1) * size))}) for n in range(count)
            ]
        groups = [
            {"name": re.sub(r"[^A-Za-z0-9_-]", "-", f"{prefix}{name}"), **span, "names": [name]}
            for prefix, span in spans
            for name in filters
        ]
        groups += [{"name": f"{prefix}rest", **span} for prefix, span in spans]
        if count is not None and layers is not None:
            groups.append({"name": "outside", "layers": ["outside"]})
        space["groups"] = groups
        self.comments["space.groups"] = (
            self.comments.get("space.groups", "") + " Each filter has numbers of its own."
        ).strip()


def _numbers_of(kind: str) -> list[str]:
    """What differs from model to model, or is the only number."""
    rule = next(rule for rule in RULES.values() if rule.kind == kind)
    return [
        keyword.ours
        for keyword in rule.keywords.values()
        if keyword.ours in ("weight", "density", "t", "gamma") and keyword.is_used
    ]


def _ranges(kind: str, *, negative: bool) -> dict[str, dict[str, float]]:
    ranges = {
        "weight": {"low": -1.0 if negative else 0.0, "high": 1.0},
        "density": {"low": 0.1, "high": 1.0},
        "t": {"low": 0.0, "high": 1.0},
        "gamma": {"low": 0.0, "high": 0.1},
    }
    return {name: ranges[name] for name in _numbers_of(kind)}


def _whole(model: Any, where: Where) -> str:
    """A whole model as a text, with its revision where it has one."""
    found = read_model(model, where)
    if "+" in found:
        raise InputError(
            f"{where}: {found!r} is a model with an adapter; build it first, and name its folder, "
            "or name an adapter of the base by itself under pool.experts of what is written"
        )
    return found


def _num_layers(model_dir: Path) -> int | None:
    """Of a model that lies on this machine."""
    if not (model_dir / CONFIG_FILE).is_file():
        return None
    count = read_json(model_dir / CONFIG_FILE).get("num_hidden_layers")
    return count if isinstance(count, int) else None
