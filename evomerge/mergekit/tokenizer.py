"""Whose tokenizer the result of a mergekit configuration has, and which rows it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.errors import InputError
from evomerge.mergekit.models import is_same, read_model
from evomerge.mergekit.where import Where
from evomerge.pool import ModelConfig
from evomerge.tokens import TokenRow, Vocabulary


def read_tokenizer(
    data: Mapping[str, Any], base: str, where: Where
) -> tuple[Vocabulary | None, str | None]:
    """The result's tokens, and the model whose tokenizer it has where that is not the base.

    Args:
        data: The configuration.
        base: The base model.
        where: Its place.

    Raises:
        InputError: It is said twice, or is none.
    """
    if data.get("tokenizer_source") is not None and data.get("tokenizer") is not None:
        raise InputError(f"{where}: `tokenizer_source` and `tokenizer` are both given")
    source, place = data.get("tokenizer_source"), where / "tokenizer_source"
    settings: dict[str, Any] = {}
    if data.get("tokenizer") is not None:
        section = where / "tokenizer"
        keys = ("source", "tokens", "pad_to_multiple_of")
        tokenizer = section.mapping(data["tokenizer"], keys)
        source, place = tokenizer.get("source", "union"), section / "source"
        settings = _settings(tokenizer, section)
    if source is None:
        return None, None
    # As mergekit: the base's row, else the only owner's, else the mean of the owners'.
    tokens = "union" if source == "union" else "base"
    vocabulary = Vocabulary.model_validate({"tokens": tokens, "missing": "base", **settings})
    if source in ("base", "union"):
        return vocabulary, None
    model = read_model(source, place)
    return vocabulary, None if is_same(model, base) else model


def with_names(
    vocabulary: Vocabulary | None, entries: Mapping[str, ModelConfig], where: Where
) -> Vocabulary | None:
    """A vocabulary whose rows name members, in the place of models of the file.

    Raises:
        InputError: One is of a model that is not merged.
    """
    if vocabulary is None or vocabulary.rows is None:
        return vocabulary
    rows = {}
    for token, row in vocabulary.rows.items():
        if row.model is not None and row.model not in entries:
            raise InputError(
                f"{where / 'tokenizer' / 'tokens' / token}: {row.model!r} is none of the merged "
                f"models; valid: {', '.join(entries)}"
            )
        name = None if row.model is None else entries[row.model].name
        rows[token] = row.model_copy(update={"model": name})
    return vocabulary.model_copy(update={"rows": rows})


def _settings(tokenizer: Mapping[str, Any], where: Where) -> dict[str, Any]:
    found: dict[str, Any] = {}
    multiple = tokenizer.get("pad_to_multiple_of")
    if multiple is not None:
        if type(multiple) is not int or multiple < 1:
            place = where / "pad_to_multiple_of"
            raise InputError(f"{place}: got {multiple!r}, expected a whole number, 1 or more")
        found["pad_to_multiple_of"] = multiple
    tokens = tokenizer.get("tokens")
    if tokens:
        if not isinstance(tokens, dict):
            raise InputError(f"{where / 'tokens'}: got {tokens!r}, expected sources by token")
        found["rows"] = {
            str(token): _row(entry, where / "tokens" / str(token))
            for token, entry in tokens.items()
        }
    return found


def _row(data: Any, where: Where) -> TokenRow:
    entry = where.mapping(data, ("source", "force"))
    source, force = entry.get("source"), entry.get("force") or False
    if not isinstance(force, bool):
        raise InputError(f"{where / 'force'}: got {force!r}, expected true or false")
    if source is None:
        raise InputError(f"{where}: `source` is missing: where the token's row comes from")
    place = where / "source"
    if not isinstance(source, dict) or "kind" not in source:
        return TokenRow(model=read_model(source, place), force=force)
    source = place.mapping(source, ("kind", "model", "token", "token_id"))
    if source["kind"] == "zero":
        return TokenRow(force=force)
    token, number = source.get("token"), source.get("token_id")
    if source["kind"] != "model_token" or (token is None) == (number is None):
        raise InputError(
            f"{place}: got {source!r}; valid: a model, {{kind: zero}}, or {{kind: model_token, "
            "model: ..., token: ...}} (or token_id)"
        )
    if token is not None and not isinstance(token, str):
        raise InputError(f"{place / 'token'}: got {token!r}, expected a text")
    if number is not None and (type(number) is not int or number < 0):
        raise InputError(f"{place / 'token_id'}: got {number!r}, expected a whole number")
    model = read_model(source.get("model"), place / "model")
    return TokenRow(model=model, token=token, token_id=number, force=force)
