"""A model's rows, one for each token id, put in the order of another vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evomerge.pool.checkpoint import Checkpoint
from evomerge.threads import torch_threads
from evomerge.tokens import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_ROWS = 1 << 12
"""Rows copied or added at once, so that little memory is taken beside the result."""


@dataclass(frozen=True)
class TokenRows:
    """What the rows of one model's aligned tensors are.

    Attributes:
        owner: The model.
        num_rows: Of the aligned tensors.
        copies: Models with their rows, and where these go; int64 [k] each.
        means: A row, and the models' rows that it is the mean of.
        filled: Rows of zeros, or of the mean of the model's own tokens; int64 [m].
        mean_of: The model's own tokens' rows if `filled` are their mean; int64 [n].
        zeros: Rows of zeros, whatever `filled` are; int64 [k].
        padding: Rows of no token that the base has not: the mean of `of_tokens`; int64 [p].
        of_tokens: Rows of tokens, in the aligned tensors; int64 [t].
    """

    owner: Checkpoint
    num_rows: int
    copies: tuple[tuple[Checkpoint, Tensor, Tensor], ...]
    means: tuple[tuple[int, tuple[tuple[Checkpoint, int], ...]], ...]
    filled: Tensor
    mean_of: Tensor | None
    zeros: Tensor
    padding: Tensor
    of_tokens: Tensor

    def make(self, name: str, embedding: str) -> Tensor:
        """An aligned tensor: the model's type, or a wider one where others' rows need it.

        Args:
            name: Of the tensor.
            embedding: What is taken from models that do not store it (a tied head).
        """

        def stored(checkpoint: Checkpoint) -> Tensor:
            return checkpoint.unaligned(name if name in checkpoint.tensors else embedding)

        own = stored(self.owner)
        lenders = {c.name: c for _, rows in self.means for c, _ in rows}
        lenders |= {checkpoint.name: checkpoint for checkpoint, _, _ in self.copies}
        dtypes = [stored(checkpoint).dtype for checkpoint in lenders.values()]
        dtype = functools.reduce(torch.promote_types, dtypes, own.dtype)
        result = torch.empty((self.num_rows, *own.shape[1:]), dtype=dtype)
        for checkpoint, there, here in self.copies:
            source = stored(checkpoint)
            for start in range(0, len(here), CHUNK_ROWS):
                chunk = slice(start, start + CHUNK_ROWS)
                result[here[chunk]] = source[there[chunk]].to(dtype)
        for row, rows in self.means:
            lent = torch.stack([stored(checkpoint)[index].double() for checkpoint, index in rows])
            with torch_threads(1):
                result[row] = lent.mean(dim=0).float().to(dtype)
        if len(self.filled):
            zeros = own.new_zeros(own.shape[1:])
            fill = zeros if self.mean_of is None else _mean(own, self.mean_of)
            result[self.filled] = fill.to(dtype)
        result[self.zeros] = 0
        if len(self.padding):
            result[self.padding] = _mean(result, self.of_tokens)
        return result


def _mean(tensor: Tensor, rows: Tensor) -> Tensor:
    """The mean of some rows, in the tensor's type; rounded once."""
    total = torch.zeros(tensor.shape[1:], dtype=torch.float64)
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = tensor[rows[start : start + CHUNK_ROWS]].double()
        with torch_threads(1):
            total += chunk.sum(dim=0)
    return (total / len(rows)).float().to(tensor.dtype)


def vocabulary_tensors(model: PreTrainedModel) -> frozenset[str]:
    """Names of the tensors that have a row for each token: of the input embedding and the head."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    return frozenset(
        name
        for name in model.state_dict()
        if any(model.get_submodule(name.rpartition(".")[0]) is module for module in modules)
    )


def rows_of(
    checkpoint: Checkpoint,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    owners: Sequence[Checkpoint],
    policy: Vocabulary,
    tokens: Mapping[str, Mapping[str, int]],
    target: Mapping[str, int],
    num_rows: int,
    embedding: str,
) -> TokenRows:
    """Where a model's aligned rows come from.

    Args:
        checkpoint: The model.
        base: The base; rows of no token are its.
        experts: All other models of the pool.
        owners: The models that have tokens which the base lacks.
        policy: What the row of a token is that the model lacks.
        tokens: Ids by token, of every model.
        target: Ids by token, of the aligned tensors.
        num_rows: Of the aligned tensors.
        embedding: Name of the input embedding.
    """
    own, missing, said = tokens[checkpoint.name], policy.missing, policy.rows or {}
    spare = sorted(set(range(num_rows)) - set(target.values()))
    of_base = base.tensors[embedding].shape[0]
    padding = [row for row in spare if row >= of_base]
    pairs: dict[str, list[tuple[int, int]]] = {"base": [(n, n) for n in spare if n < of_base]}
    zeros: list[int] = []
    models = {c.name: c for c in (*experts, base)}
    means: list[tuple[int, tuple[tuple[Checkpoint, int], ...]]] = []
    filled: list[int] = []
    for token, row in target.items():
        rule = said.get(token)
        if rule is not None and (rule.force or token not in own):
            wanted = rule.token or token
            if rule.mean_of is not None:
                means.append((row, tuple((models[n], tokens[n][wanted]) for n in rule.mean_of)))
                continue
            if rule.model is None:
                zeros.append(row)
                continue
            lent = rule.token_id
            if lent is None:
                lent = tokens[rule.model][wanted]
            pairs.setdefault(rule.model, []).append((lent, row))
        elif token in own:
            pairs.setdefault(checkpoint.name, []).append((own[token], row))
        elif missing != "base":
            filled.append(row)
        elif token in tokens["base"]:
            pairs["base"].append((tokens["base"][token], row))
        else:
            lenders = [owner for owner in owners if token in tokens[owner.name]]
            if len(lenders) == 1:
                pairs.setdefault(lenders[0].name, []).append((tokens[lenders[0].name][token], row))
            else:
                means.append((row, tuple((c, tokens[c.name][token]) for c in lenders)))
    copies = []
    for name, of_model in pairs.items():
        if of_model:
            there, here = torch.tensor(of_model).T.contiguous()
            copies.append((models[name], there, here))
    return TokenRows(
        checkpoint,
        num_rows,
        tuple(copies),
        tuple(means),
        torch.tensor(filled, dtype=torch.int64),
        torch.tensor(sorted(own.values())) if missing == "mean" else None,
        torch.tensor(zeros, dtype=torch.int64),
        torch.tensor(padding, dtype=torch.int64),
        torch.tensor(sorted(target.values()), dtype=torch.int64),
    )
