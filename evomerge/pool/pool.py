"""The pool: a base and its experts, opened and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evomerge.errors import InputError, closest
from evomerge.pool.adapters.adapter import is_adapter, open_adapter
from evomerge.pool.alike import check_architecture, check_configs, check_shapes
from evomerge.pool.checkpoint import Checkpoint, open_checkpoint
from evomerge.pool.components import RULES, Rules
from evomerge.pool.config import ModelConfig, PoolConfig
from evomerge.pool.families import tell_of_unknown
from evomerge.pool.foreign_code import warn_of_code
from evomerge.pool.hub import locate, split_source
from evomerge.pool.layout import Layout, config_of_checkpoint, hollow_model, layout_of
from evomerge.pool.names import use_model_names
from evomerge.pool.quantized import as_floats
from evomerge.pool.vocabulary.align import Aligned, align
from evomerge.pool.vocabulary.rows import vocabulary_tensors
from evomerge.pool.vocabulary.tokenizers import check_needs_no_code, check_tokenizers
from evomerge.recipe import MERGED, Dtype, Member, Recipe
from evomerge.tokens import Vocabulary

DTYPES: dict[str, Dtype] = {
    "F64": "float32",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


@dataclass
class Pool:
    """Checkpoints that fit together.

    Attributes:
        base: The common ancestor.
        experts: Fine-tunes of it.
        layout: Where each tensor of the base belongs.
        dtype: Type of the merged models.
        ignore_config: Fields of config.json in which experts may differ from the base.
        aligned: The merged models' vocabulary, where the models' own differ.
    """

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    layout: Layout
    dtype: Dtype
    ignore_config: tuple[str, ...] = ()
    aligned: Aligned | None = None

    def __iter__(self) -> Iterator[Checkpoint]:
        yield self.base
        yield from self.experts

    def __getitem__(self, name: str) -> Checkpoint:
        return next(checkpoint for checkpoint in self if checkpoint.name == name)

    def require_layers(self) -> None:
        """Refuse a model without a list of transformer blocks.

        Raises:
            InputError: It has none.
        """
        if not self.layout.layers:
            raise InputError(
                f"{self.base.model_dir}: model_type {self.base.config.get('model_type')!r} has no "
                "list of layers, and nothing that could be reordered"
            )

    @property
    def vocabulary(self) -> Vocabulary | None:
        """How rows were aligned; None where there was nothing to align."""
        return None if self.aligned is None else self.aligned.vocabulary

    @property
    def schema_version(self) -> Literal[1, 2]:
        """Of recipes whose tensors' kinds are this pool's."""
        return self.layout.rules

    @property
    def added_tokens(self) -> tuple[dict[str, Any], ...]:
        """Entries of tokenizer.json for tokens that merged models have behind the base's."""
        return () if self.aligned is None else self.aligned.added

    @property
    def vocabulary_config(self) -> dict[str, Any]:
        """The fields of config.json that added rows change."""
        num_rows = self.layout.shapes[self.layout.embedding][0]
        if self.aligned is None or num_rows == self.base.tensors[self.layout.embedding].shape[0]:
            return {}
        names: dict[str, str] = config_of_checkpoint(self.base).attribute_map
        return {names.get("vocab_size", "vocab_size"): num_rows}

    @property
    def members(self) -> dict[str, Member]:
        """The pool as recipes name it; hashes every file the first time."""
        return {c.name: Member(sha256=c.sha256, source=c.source) for c in self}

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a recipe whose members are not this pool's.

        Raises:
            InputError: A member is missing here or has another hash.
        """
        here = self.members
        for name, member in recipe.members.items():
            if name not in here:
                raise InputError(f"recipe member {name!r} is not in the pool: {list(here)}")
            if here[name].sha256 != member.sha256:
                raise InputError(
                    f"recipe member {name!r} has hash {member.sha256[:12]}, the pool's model of "
                    f"that name has {here[name].sha256[:12]}: the files have changed"
                )
        if recipe.schema_version != self.schema_version and recipe.has_components:
            raise InputError(
                f"the recipe has schema_version {recipe.schema_version}, in which other tensors "
                f"are of the kinds that it names than in this pool's {self.schema_version}\n"
                f"valid: a search with `pool: {{component_rules: {recipe.schema_version}}}`"
            )
        check_vocabulary(recipe, self.vocabulary)
        if recipe.path is not None:
            self.require_layers()
            for number, hop in enumerate(recipe.path.hops):
                if hop.layer >= self.layout.num_layers:
                    raise InputError(
                        f"path.hops.{number}: model {hop.model!r} has no layer {hop.layer}; "
                        f"valid: 0 to {self.layout.num_layers - 1}"
                    )

    def resolved(self) -> PoolConfig:
        """The configuration that opens exactly this pool again."""
        entries = [entry_of(c.name, c.source) for c in self]
        return PoolConfig(
            base=entries[0],
            experts=tuple(entries[1:]),
            dtype=self.dtype,
            ignore_config=self.ignore_config,
            vocabulary=self.vocabulary,
            allow_nonfinite=self.base.allow_nonfinite,
            trust_remote_code=tuple(c.name for c in self if c.trusted),
            component_rules=None if self.layout.rules == 1 else self.layout.rules,
        )


def open_pool(
    config: PoolConfig, config_dir: Path, hashes: Mapping[str, str] | None = None
) -> Pool:
    """Open and check every model.

    Args:
        config: The models.
        config_dir: What relative folders are relative to.
        hashes: SHA-256 by name where it is known already, so that no file is hashed again.

    Raises:
        InputError: A model is missing, damaged, of another architecture or shape, or reads text
            differently. (That a tensor is not finite is noticed when the model is hashed.)
    """
    pool = _open_all(
        config.base,
        config.experts,
        config.dtype,
        config_dir,
        config.vocabulary,
        config.trust_remote_code,
        # A run from before the second rules, opened again, has nothing to say of them.
        config.component_rules or (RULES if hashes is None else 1),
    )
    pool.ignore_config = config.ignore_config
    for checkpoint in pool:
        checkpoint.allow_nonfinite = config.allow_nonfinite
    # Opened again from a run's own configuration, it was checked when the run began.
    if hashes is None:
        tell_of_unknown(pool.base.config, pool.base.model_dir, pool.layout)
        for checkpoint in pool:
            warn_of_code(checkpoint.name, checkpoint.model_dir, trusted=checkpoint.trusted)
        check_configs(pool.base, pool.experts, pool.layout, pool.ignore_config)
    if hashes is not None:
        for checkpoint in pool:
            checkpoint.sha256 = hashes[checkpoint.name]
    return pool


def open_models(
    base: ModelConfig,
    experts: tuple[ModelConfig, ...],
    dtype: Dtype | None,
    folder: Path,
    vocabulary: Vocabulary | None = None,
) -> Pool:
    """Open and check models; unlike a search's pool, the base may stand alone.

    Raises:
        InputError: See `open_pool`.
    """
    pool = _open_all(base, experts, dtype, folder, vocabulary)
    check_configs(pool.base, pool.experts, pool.layout, pool.ignore_config)
    return pool


def _open_all(
    base_entry: ModelConfig,
    entries: tuple[ModelConfig, ...],
    dtype: Dtype | None,
    config_dir: Path,
    vocabulary: Vocabulary | None,
    trusted: Collection[str] = (),
    rules: Rules = RULES,
) -> Pool:
    names = ["base", *(entry.name or Path(entry.source).name for entry in entries)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"pool: two models are called {name!r}; give one of them another `name:`"
            )
        if name == MERGED:
            raise InputError(
                f"pool: a model cannot be called {name!r}: paths call the merged model so"
            )
        # Names are parts of file names and of MLflow's.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(
                f"pool: a model cannot be called {name!r}; give it a `name:` of letters, digits, "
                "'_', '.' and '-'"
            )
    for name in trusted:
        if name not in names:
            raise InputError(f"pool.trust_remote_code: no model {name!r}; {closest(name, names)}")
    model_dir, source = locate(base_entry, config_dir, with_code="base" in trusted)
    if is_adapter(model_dir):
        raise InputError(f"model 'base': {model_dir} is an adapter; the base must be a whole model")
    model_dir = as_floats("base", model_dir)
    base = open_checkpoint("base", model_dir, source)
    base.trusted = "base" in trusted
    check_needs_no_code(base)
    model = hollow_model(base.model_dir, trusted=base.trusted)
    layout = layout_of(model, rules)
    rows = vocabulary_tensors(model)

    def opened(name: str, entry: ModelConfig) -> Checkpoint:
        model_dir, source = locate(entry, config_dir, with_code=name in trusted)
        if is_adapter(model_dir):
            return open_adapter(name, model_dir, source, base, model, layout)
        model_dir = as_floats(name, model_dir)
        checkpoint = open_checkpoint(name, model_dir, source)
        checkpoint.trusted = name in trusted
        check_architecture(checkpoint, base)
        use_model_names(checkpoint, model)
        check_shapes(checkpoint, base, layout, rows, are_aligned=vocabulary is not None)
        return checkpoint

    use_model_names(base, model)
    check_shapes(base, base, layout)
    experts = tuple(opened(name, entry) for name, entry in zip(names[1:], entries, strict=True))
    first = next(iter(layout.places))
    pool = Pool(base, experts, layout, dtype or DTYPES[base.tensors[first].dtype])
    if vocabulary is None:
        check_tokenizers(base, experts)
        return pool
    pool.aligned = align(base, experts, vocabulary, layout, rows)
    if pool.aligned is not None:
        pool.layout = pool.aligned.layout
    return pool


def open_members(recipe: Recipe) -> Pool:
    """Open the checkpoints that a recipe names, where it says they lie.

    Raises:
        InputError: One is missing or its hash is not the recipe's.
    """
    entries = {name: entry_of(name, member.source) for name, member in recipe.members.items()}
    base = entries.pop("base")
    pool = _open_all(
        base,
        tuple(entries.values()),
        recipe.dtype,
        Path(),
        recipe.vocabulary,
        (),
        recipe.schema_version,
    )
    for checkpoint in pool:
        # The recipe's pool took them as they are, and the hashes say that they are these.
        checkpoint.allow_nonfinite = True
    pool.check_recipe(recipe)
    return pool


def entry_of(name: str, source: str) -> ModelConfig:
    """What opens a model again; `source` is an absolute folder or `id@commit`."""
    place, revision = split_source(source)
    return ModelConfig(source=place, revision=revision, name=name)


def check_vocabulary(recipe: Recipe, vocabulary: Vocabulary | None) -> None:
    """Refuse a recipe whose rows of tokens are not a pool's.

    Raises:
        InputError: They are not.
    """
    if _unordered(recipe.vocabulary) != _unordered(vocabulary):
        raise InputError(
            f"the recipe's vocabulary is {_described(recipe.vocabulary)}, the pool's "
            f"{_described(vocabulary)}: rows of one are not those of the other"
        )


_SAID_BY_HASH = {"order": (), "match": None, "least_matched": None}
"""Fields of a vocabulary that its hash says already."""


def _unordered(vocabulary: Vocabulary | None) -> Vocabulary | None:
    """Without what its hash says already."""
    return None if vocabulary is None else vocabulary.model_copy(update=_SAID_BY_HASH)


def _described(vocabulary: Vocabulary | None) -> str:
    return "the base's" if vocabulary is None else str(vocabulary.model_dump(exclude_defaults=True))
