"""Whose tokens merged models have, and where the rows of tokens come from that a model lacks."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from evomerge.registry import Section

Missing = Literal["base", "zero", "mean"]


class TokenRow(Section):
    """Where the row of one token comes from, in models that lack it.

    Attributes:
        model: The member that has it; none: the row is zeros.
        token: The token whose row it is there; by default the same token.
        token_id: The row itself, in the place of a token.
        mean_of: Members, in the place of one: the row is the mean of their rows of the token.
        force: Whether models that have the token take this row as well.
    """

    model: str | None = None
    token: str | None = None
    token_id: int | None = Field(default=None, ge=0)
    mean_of: tuple[str, ...] | None = Field(default=None, min_length=1)
    force: bool = False

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.mean_of is not None and self.model is not None:
            raise ValueError("a row is of a model, or the mean_of several")
        if self.token_id is not None and (self.token is not None or self.mean_of is not None):
            raise ValueError("a token_id is a row of one model; give no token and no mean_of")
        is_there = self.model is not None or self.mean_of is not None
        if not is_there and (self.token is not None or self.token_id is not None):
            raise ValueError("say of which model: model or mean_of is missing")
        return self


class Vocabulary(Section):
    """The tokens of merged models whose members' tokenizers differ.

    Attributes:
        tokens: The base's, with its ids; or the union, which has behind them those that experts
            added.
        missing: The row of a token that a model lacks: the base's (where it has none, the only
            owner's, else the mean of the owners'), zeros, or the mean of the model's own.
        match: "text": an expert may have another tokenizer; each of the base's tokens takes the row
            of the expert's token that stands for the same text. By default tokenizers may differ by
            added tokens alone.
        least_matched: The least share of the base's tokens that an expert must have, with `match`;
            by default 0.5.
        rows: Tokens whose rows are said, by token; one that no tokenizer has is added.
        pad_to_multiple_of: Rows are added until their number is a multiple; each is the mean of the
            model's rows of tokens.
        order: Experts whose tokens come first in a union; the others follow in the pool's order.
        sha256: Hash of these tokens and of their ids in every model. Other tokenizers are refused.
    """

    tokens: Literal["base", "union"] = "base"
    missing: Missing = "base"
    match: Literal["text"] | None = None
    least_matched: float | None = Field(default=None, ge=0.0, le=1.0)
    rows: dict[str, TokenRow] | None = Field(default=None, min_length=1)
    pad_to_multiple_of: int | None = Field(default=None, ge=1)
    order: tuple[str, ...] = ()
    sha256: str | None = None

    @model_serializer(mode="wrap")
    def _without_later_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out where they say nothing."""
        found: dict[str, Any] = handler(self)
        later = ("match", "least_matched", "rows", "pad_to_multiple_of")
        return {n: value for n, value in found.items() if value is not None or n not in later}

    @model_validator(mode="after")
    def _matches_the_base(self) -> Self:
        if self.match is not None and self.tokens != "base":
            raise ValueError("match: text takes the base's tokens; valid beside it: tokens: base")
        if self.match is None and self.least_matched is not None:
            raise ValueError("least_matched goes with match: text")
        return self
