"""What mergekit's `tokenizer_source` and a recipe's vocabulary have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.tokens import TokenRow


def check_rows(pool: Pool, name: str, models: Iterable[str]) -> None:
    """Refuse a tensor whose rows mergekit would fill otherwise than the pool's vocabulary does.

    mergekit fills the row of a token that a model lacks from the models that are merged in the
    same tensor (base, only owner, mean of the owners; zeros where none has it), the pool from all.

    Args:
        pool: Models of a vocabulary with `missing: base`.
        name: The tensor's.
        models: The members merged in it; the base is one where the method uses it.

    Raises:
        InputError: A model lacks a token, and not all that its row is taken from are among these.
    """
    if pool.aligned is None or not any(name in checkpoint.aligned for checkpoint in pool):
        return
    merged = tuple(models)
    lenders = {"base", *pool.aligned.vocabulary.order}
    lacking = [model for model in merged if model in pool.aligned.incomplete]
    if lacking and not lenders <= set(merged):
        raise InputError(
            f"tensor {name!r} is merged of {', '.join(merged)} alone, and {lacking[0]!r} lacks "
            "tokens of the result: mergekit takes their rows from these models, and zeros where "
            f"none has them; here they come from {', '.join(c.name for c in pool)}\n"
            "merge in it all models, if with a weight of 0"
        )


def tokenizer_source(pool: Pool, data: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """What says the pool's vocabulary in a configuration.

    Args:
        pool: The models.
        data: The configuration.
        sources: What it calls the members.

    Raises:
        InputError: mergekit has no words for it, or would mean other tokens.
    """
    vocabulary = pool.vocabulary
    if vocabulary is None:
        return {}
    if vocabulary.missing != "base":
        raise InputError(
            "mergekit has the base's rows for tokens that a model lacks, the recipe "
            f"`vocabulary.missing: {vocabulary.missing}`"
        )
    if vocabulary.match is not None:
        raise InputError(
            "mergekit aligns the same tokens alone, the recipe those of the same text "
            f"(`vocabulary.match: {vocabulary.match}`)"
        )
    if "base_model" not in data:
        raise InputError(
            f"mergekit's {data['merge_method']} without an origin has no base model, whose tokens "
            "the recipe's vocabulary begins with"
        )
    pieces = [data["models"]] if "models" in data else [p["sources"] for p in data["slices"]]
    used = dict.fromkeys(source["model"] for piece in pieces for source in piece)
    order = [sources[name] for name in vocabulary.order]
    if [model for model in used if model in order] != order:
        raise InputError(
            "mergekit's union has the tokens of the merged models in their order, the recipe's "
            f"those of {', '.join(vocabulary.order)}"
        )
    if vocabulary.rows is None and vocabulary.pad_to_multiple_of is None:
        return {"tokenizer_source": vocabulary.tokens}
    tokenizer: dict[str, Any] = {"source": vocabulary.tokens}
    if vocabulary.rows is not None:
        rows = vocabulary.rows.items()
        tokenizer["tokens"] = {token: _source_of(row, token, sources) for token, row in rows}
    if vocabulary.pad_to_multiple_of is not None:
        tokenizer["pad_to_multiple_of"] = vocabulary.pad_to_multiple_of
    return {"tokenizer": tokenizer}


def _source_of(row: TokenRow, token: str, sources: Mapping[str, str]) -> dict[str, Any]:
    """A token's row in mergekit's words."""
    entry: dict[str, Any] = {"force": True} if row.force else {}
    if row.mean_of is not None:
        raise InputError(f"mergekit has no words for the mean of several models' rows of {token!r}")
    if row.model is None:
        return {"source": {"kind": "zero"}, **entry}
    source: dict[str, Any] = {"kind": "model_token", "model": sources[row.model]}
    if row.token_id is not None:
        return {"source": source | {"token_id": row.token_id}, **entry}
    return {"source": source | {"token": row.token or token}, **entry}
