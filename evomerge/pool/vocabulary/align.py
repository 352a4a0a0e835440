"""Models whose vocabularies differ by added tokens: their rows in one order, by token string.

Input embedding and output head have a row for each token id. Two fine-tunes may have added tokens
of their own, or the same at other ids. Here every model's rows are put where the pool's vocabulary
has their tokens; whoever reads a tensor behind it sees one shape and one meaning of a row.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.files import sha256_json
from evomerge.pool.adapters.adapter import Adapter
from evomerge.pool.checkpoint import Checkpoint
from evomerge.pool.layout import Layout, config_of_checkpoint
from evomerge.pool.vocabulary.rows import rows_of
from evomerge.pool.vocabulary.texts import matched
from evomerge.pool.vocabulary.tokenizers import (
    MATCHES,
    TOKENIZER_FILE,
    has_own_tokenizer,
    has_tokenizer,
    only_added_differ,
    read_added,
    read_texts,
    read_vocabulary,
    share_vocabulary,
    tell_of_none,
)
from evomerge.tokens import Vocabulary

logger = logging.getLogger(__name__)

_NEW = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": True,
    "special": False,
}
"""An entry of tokenizer.json for a token that no tokenizer has."""

LEAST_MATCHED = 0.5
"""Share of the base's tokens that an expert with another tokenizer must have."""


@dataclass(frozen=True)
class Aligned:
    """A pool's vocabulary, once its models are aligned.

    Attributes:
        vocabulary: The policy, with the hash of what it comes to.
        added: Entries of tokenizer.json for the tokens behind the base's, with their ids.
        incomplete: Names of models that lack one of the tokens.
        layout: The base's, with the shapes of the aligned tensors.
        shares: Of the base's tokens, by experts whose tokens were matched by text.
    """

    vocabulary: Vocabulary
    added: tuple[dict[str, Any], ...]
    incomplete: frozenset[str]
    layout: Layout
    shares: dict[str, float]


def align(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    policy: Vocabulary,
    layout: Layout,
    names: Iterable[str],
) -> Aligned | None:
    """Have every model give its tensors in the order of one vocabulary.

    Args:
        base: The base.
        experts: The others; those that need it are changed, and so is the base.
        policy: Which tokens, and what is missing.
        layout: The base's.
        names: The tensors that have a row for each token.

    Returns:
        None where all models have the same vocabulary and the same number of rows already, and
        none is expected. Where they differ in tokens without rows nothing is moved, but without
        a policy they would not be opened again.

    Raises:
        InputError: Tokenizers differ by more than added tokens, an adapter has other tokens, or
            the tokens are not those that the policy's hash was made of.
    """
    shares: dict[str, float] = {}
    tokens = {c.name: _tokens(c, base, layout, policy, shares) for c in (base, *experts)}
    order = _order(experts, policy)
    added = _added(base, order if policy.tokens == "union" else (), tokens, policy)
    target = tokens["base"] | {entry["content"]: entry["id"] for entry in added}
    num_rows = max(
        [layout.shapes[layout.embedding][0], *(token_id + 1 for token_id in target.values())]
    )
    num_rows += -num_rows % (policy.pad_to_multiple_of or 1)
    adapters = {expert.name for expert in experts if isinstance(expert, Adapter)}
    heights = {c.name: _num_rows(c, layout) for c in (base, *experts)}
    _check_rows(policy, tokens, heights, adapters)
    is_forced = any(row.force for row in (policy.rows or {}).values())
    same = [
        c.name
        for c in (base, *experts)
        if tokens[c.name] == target and _num_rows(c, layout) == num_rows and not is_forced
    ]
    is_one = len(same) == len(tokens) and share_vocabulary(base, experts)
    if is_one and policy.sha256 is None:
        return None
    if num_rows != _num_rows(base, layout):
        _check_configurable(base, num_rows)
    owners = [c for c in order if tokens[c.name].keys() - tokens["base"].keys()]
    policy = _resolved(policy, owners, tokens, target, added)
    names = tuple(names)
    for checkpoint in (base, *experts):
        if checkpoint.name in same:
            continue
        if isinstance(checkpoint, Adapter):
            _check_adapter(checkpoint, names)
            continue
        rows = rows_of(
            checkpoint, base, experts, owners, policy, tokens, target, num_rows, layout.embedding
        )
        for name in names:
            if name in checkpoint.tensors:
                checkpoint.aligned[name] = functools.partial(rows.make, name, layout.embedding)
    shapes = {
        name: (num_rows, *shape[1:]) if name in names else shape
        for name, shape in layout.shapes.items()
    }
    unsaid = target.keys() - (policy.rows or {}).keys()
    incomplete = frozenset(name for name, own in tokens.items() if unsaid - own.keys())
    return Aligned(policy, added, incomplete, replace(layout, shapes=shapes), shares)


def _num_rows(checkpoint: Checkpoint, layout: Layout) -> int:
    return checkpoint.tensors[layout.embedding].shape[0]


def _check_configurable(base: Checkpoint, num_rows: int) -> None:
    """The number of rows must be a field of config.json, and not of a part of it."""
    config = config_of_checkpoint(base)
    if config.get_text_config() is not config:
        raise InputError(
            f"pool.vocabulary: the merged vocabulary has {num_rows} rows, and config.json of model "
            f"'base' (model_type {config.model_type!r}) has their number inside another section; "
            "rows can be put in order there, but none added; valid: tokens: base"
        )


def _tokens(
    checkpoint: Checkpoint,
    base: Checkpoint,
    layout: Layout,
    policy: Vocabulary,
    shares: dict[str, float],
) -> dict[str, int]:
    """Ids of the tokens that a model has a row for; with `match: text` by the base's tokens.

    `shares` is given the share of the base's tokens where they are matched.
    """
    if not has_tokenizer(base):
        raise InputError(
            f"pool.vocabulary: model 'base' has no {base.model_dir / TOKENIZER_FILE}, which names "
            "the tokens of its rows"
        )
    is_own = checkpoint is not base and has_own_tokenizer(checkpoint, base)
    if checkpoint is not base and not is_own:
        tell_of_none(checkpoint)
    vocabulary = read_vocabulary(checkpoint if is_own else base)
    if is_own and policy.match == "text" and only_added_differ(base, checkpoint) is not None:
        matches = _matched(checkpoint, base, layout, policy)
        shares[checkpoint.name] = len(matches) / max(1, len(_with_rows(base, layout)))
        return matches
    if is_own:
        difference = only_added_differ(base, checkpoint)
        if difference is not None:
            raise InputError(
                f"tokenizers differ: {difference}\n"
                f"pool.vocabulary aligns added tokens; all else must be the base's{MATCHES}"
            )
    if is_own and isinstance(checkpoint, Adapter) and vocabulary != read_vocabulary(base):
        raise InputError(
            f"model {checkpoint.name!r} is an adapter with other tokens than the base's; "
            "pool.vocabulary aligns whole models: merge it into its base first"
        )
    num_rows = _num_rows(checkpoint, layout)
    return {token: index for token, index in vocabulary.items() if index < num_rows}


def tokens_with_rows(checkpoint: Checkpoint, base: Checkpoint, layout: Layout) -> dict[str, int]:
    """Ids of the tokens that a model has a row for; without a tokenizer it has the base's."""
    is_own = checkpoint is base or has_own_tokenizer(checkpoint, base)
    return _with_rows(checkpoint if is_own else base, layout)


def _with_rows(checkpoint: Checkpoint, layout: Layout) -> dict[str, int]:
    """Ids of the tokens of a model's own tokenizer that it has a row for."""
    num_rows = _num_rows(checkpoint, layout)
    return {t: index for t, index in read_vocabulary(checkpoint).items() if index < num_rows}


def _matched(
    expert: Checkpoint, base: Checkpoint, layout: Layout, policy: Vocabulary
) -> dict[str, int]:
    """Ids of an expert's tokens by those of the base that stand for the same text."""
    if isinstance(expert, Adapter):
        raise InputError(
            f"model {expert.name!r} is an adapter with another tokenizer than the base's; "
            "pool.vocabulary aligns whole models: merge it into its base first"
        )
    texts, wanted = read_texts(base), _with_rows(base, layout)
    ours = {token: texts[token] for token in wanted}
    found = matched(ours, read_texts(expert), _with_rows(expert, layout))
    share = len(found) / max(1, len(wanted))
    said = f"{share:.1%} of the base's {len(wanted):,} tokens have a token of the same text"
    least = LEAST_MATCHED if policy.least_matched is None else policy.least_matched
    if share < least:
        raise InputError(
            f"model {expert.name!r}: {said}; valid: {least:.0%} or more "
            "(pool.vocabulary.least_matched)"
        )
    # Opened again, with the hash of what it came to, it was said before.
    if policy.sha256 is None:
        logger.warning("model %r: %s; the others' rows are %s", expert.name, said, policy.missing)
    return found


def _order(experts: Sequence[Checkpoint], policy: Vocabulary) -> list[Checkpoint]:
    by_name = {expert.name: expert for expert in experts}
    for name in policy.order:
        if name not in by_name:
            raise InputError(
                f"pool.vocabulary.order: no expert {name!r}; {closest(name, list(by_name))}"
            )
    return [by_name[name] for name in dict.fromkeys([*policy.order, *by_name])]


def _check_rows(
    policy: Vocabulary,
    tokens: Mapping[str, Mapping[str, int]],
    num_rows: Mapping[str, int],
    adapters: Collection[str],
) -> None:
    """Rows that are said must be there."""
    for token, row in (policy.rows or {}).items():
        where = f"pool.vocabulary.rows: {token!r}"
        for model in row.mean_of or ([] if row.model is None else [row.model]):
            if model not in tokens:
                raise InputError(f"{where}: no model {model!r}; {closest(model, list(tokens))}")
            if model in adapters:
                raise InputError(f"{where}: {model!r} is an adapter; valid: a whole model")
            if row.token_id is None:
                wanted = token if row.token is None else row.token
                if wanted not in tokens[model]:
                    raise InputError(f"{where}: model {model!r} has no row of a token {wanted!r}")
            elif row.token_id >= num_rows[model]:
                raise InputError(
                    f"{where}: model {model!r} has no row {row.token_id}; valid: 0 to "
                    f"{num_rows[model] - 1}"
                )


def _added(
    base: Checkpoint,
    order: Sequence[Checkpoint],
    tokens: Mapping[str, Mapping[str, int]],
    policy: Vocabulary,
) -> tuple[dict[str, Any], ...]:
    """Entries for the tokens that the base has not, with ids behind the base's.

    They are those of experts in this order, and then those whose rows are said.
    """
    base_ids = read_vocabulary(base)
    known = set(base_ids)
    entries: list[dict[str, Any]] = []
    for expert in order:
        if tokens[expert.name].keys() <= known:
            continue
        for entry in read_added(expert):
            if entry["content"] in tokens[expert.name] and entry["content"] not in known:
                known.add(entry["content"])
                entries.append(entry)
    entries += [_NEW | {"content": token} for token in policy.rows or {} if token not in known]
    first = max(base_ids.values()) + 1
    if entries and len(tokens["base"]) < len(base_ids):
        token = next(token for token in base_ids if token not in tokens["base"])
        raise InputError(
            f"pool.vocabulary.tokens: model 'base' has token {token!r} with id {base_ids[token]} "
            "and no row for it, so that none can follow it; valid: base"
        )
    return tuple(entry | {"id": first + number} for number, entry in enumerate(entries))


def _resolved(
    policy: Vocabulary,
    owners: Sequence[Checkpoint],
    tokens: Mapping[str, Mapping[str, int]],
    target: Mapping[str, int],
    added: Sequence[Mapping[str, Any]],
) -> Vocabulary:
    """The policy with the hash of the tokens, and of their rows in every model."""
    sha256 = sha256_json({"target": target, "added": added, "tokens": tokens})
    if policy.sha256 not in (None, sha256):
        raise InputError(
            f"vocabulary.sha256 is {str(policy.sha256)[:12]}, the models' tokenizers give "
            f"{sha256[:12]}: a {TOKENIZER_FILE} has changed, or a model was added or left out"
        )
    is_union = policy.tokens == "union"
    order = tuple(expert.name for expert in owners) if is_union else ()
    return policy.model_copy(update={"order": order, "sha256": sha256})


def _check_adapter(adapter: Adapter, names: Iterable[str]) -> None:
    for name in names:
        if name in adapter.updates or name in adapter.own:
            raise InputError(
                f"model {adapter.name!r} is an adapter that changes {name!r}, to which "
                "pool.vocabulary adds rows, or says them; valid for such adapters: tokens: base "
                "alone\n"
                "or merge it into its base first"
            )
