"""What every scorer must do.

from evomerge.testing.scorers import check_scorer

def test_my_scorer():
check_scorer(scorer, blocks)
"""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.score import Block, Scorer


def check_scorer(scorer: Scorer, blocks: Sequence[Block]) -> None:
    """Check what a worker expects of a scorer whose model's weights stay as they are.

    Args:
        scorer: Who scores.
        blocks: Two or more.

    Raises:
        AssertionError: What does not hold.
    """
    assert len(blocks) > 1, "give two blocks or more"
    rows = scorer.score(blocks)
    expected = [(block.task, document) for block in blocks for document in block.documents]
    found = [(row.task, row.document) for row in rows]
    assert found == expected, "there is one row for each document, in the order of the blocks"
    for row in rows:
        assert row.metrics, f"{row.task}, document {row.document}: no metric"
        for name, value in row.metrics.items():
            assert type(value) is float, f"{row.task}/{name} is {value!r}, expected a float"
    again = scorer.score(list(blocks)[::-1])
    by_document = {(row.task, row.document): row for row in again}
    for row in rows:
        other = by_document[row.task, row.document]
        assert other.metrics == row.metrics, (
            f"{row.task}, document {row.document}: other metrics once blocks are in another order"
        )
        assert other.log_likelihoods == row.log_likelihoods
    for block in blocks:
        apart = scorer.rows(block, scorer.answer(block))
        together = [by_document[block.task, document] for document in block.documents]
        assert apart == together, f"{block.task}: rows of its answers are not what `score` gives"
        told = scorer.requests_sha256(block)
        assert told == scorer.requests_sha256(block)
        assert told is None or len(told) == 64, "a hash has 64 hexadecimal digits"
