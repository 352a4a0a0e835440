"""The `Scorer` joint: documents in, one row a document out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evomerge.score.answers import Answers


@dataclass(frozen=True)
class Block:
    """The least piece of scoring work: some documents of a task, always run together."""

    task: str
    documents: tuple[int, ...]


@dataclass
class Row:
    """What a model did on one document.

    Attributes:
        task: The task's name.
        document: The document's position in the task's data.
        metrics: Values by metric ("acc", or "acc/filter" for a filter other than "none").
        log_likelihoods: Of the choices, nats; empty where none are computed.
        text: The first generated answer; empty where none is generated.
        num_tokens: Tokens of the document's requests, generated ones not counted; what it shares
            with documents before it in its block counts there.
        num_answer_tokens: Tokens that were generated; None where nobody counts them.
        flags: Remarks, as `score.health.SIGNS` has them.
    """

    task: str
    document: int
    metrics: dict[str, float]
    log_likelihoods: list[float] = field(default_factory=list)
    text: str = ""
    num_tokens: int = 0
    num_answer_tokens: int | None = None
    flags: list[str] = field(default_factory=list)


class Scorer(Protocol):
    """Scores a model whose weights are overwritten between calls.

    The requests of a block do not depend on the weights: they are built once.
    """

    def answer(self, block: Block) -> Answers:
        """What the model's present weights make of a block's requests.

        Raises:
            CandidateError: The model's output is not finite.
        """

    def rows(self, block: Block, answers: Answers) -> list[Row]:
        """A row for each document, from answers to the block's requests; asks no model.

        Raises:
            CandidateError: The answers give no score.
        """

    def score(self, blocks: Sequence[Block]) -> list[Row]:
        """Answer and make rows of several blocks."""

    def requests_sha256(self, block: Block) -> str | None:
        """Of all that the block asks, in hex; None where answers cannot be kept by it."""


def cut_blocks(task: str, documents: Sequence[int], block_documents: int) -> list[Block]:
    """Cut a split's documents of a task into blocks, always the same way."""
    return [
        Block(task, tuple(documents[start : start + block_documents]))
        for start in range(0, len(documents), block_documents)
    ]
