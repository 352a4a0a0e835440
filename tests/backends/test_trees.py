"""Trees: every read sees exactly the tokens before it, each of them run where it is shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.backends.batches import LEAST_FILLED, batches
from evomerge.backends.config import Batching
from evomerge.backends.plan import plan_chains, plan_trees
from evomerge.backends.trees import Branch, Read, Row, tokens_of


@st.composite
def reads(draw) -> list[Read]:
    """Sequences of few tokens, many of which begin like others."""
    made: list[Read] = []
    for _ in range(draw(st.integers(1, 10))):
        tokens = tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=8)))
        if made and draw(st.booleans()):
            other = draw(st.sampled_from(made)).tokens
            tokens = other[: draw(st.integers(1, len(other)))] + tokens
        made.append(Read(tokens, draw(st.integers(0, len(tokens) - 1))))
    return made


def rows_of(branch: Branch) -> list[Row]:
    return branch.rows if branch.trunk is None else [branch.trunk, *branch.rows]


def seen(branches: list[Branch]) -> dict[int, tuple[int, ...]]:
    """What each read sees, itself included, by the read's number."""
    trunks: dict[int, tuple[int, ...]] = {-1: ()}
    found: dict[int, tuple[int, ...]] = {}
    for number, branch in enumerate(branches):
        above = trunks[branch.above]
        assert len(above) == branch.num_above
        own = () if branch.trunk is None else tuple(branch.trunk.tokens.tolist())
        trunks[number] = above + own
        for row in rows_of(branch):
            before = above if row is branch.trunk else trunks[number]
            for place, slot in zip(row.places.tolist(), row.slots.tolist(), strict=True):
                path = [at for at in range(place + 1) if place < row.ends[at]]
                assert row.positions[path].tolist() == list(
                    range(len(before), len(before) + len(path))
                )
                assert slot not in found
                found[slot] = before + tuple(row.tokens[path].tolist())
    return found


def expected(asked: list[Read]) -> dict[int, tuple[int, ...]]:
    sequences = [
        read.tokens[: place + 1] for read in asked for place in range(read.first, len(read.tokens))
    ]
    return dict(enumerate(sequences))


@given(reads(), st.sampled_from([0, 1, 3, 8, 50]), st.sampled_from([1, 2, 5, 100]))
def test_a_read_sees_what_stands_before_it(asked, row_tokens, least_saved):
    branches = plan_trees(asked, row_tokens, least_saved)
    assert seen(branches) == expected(asked)
    counts = tokens_of(branches, len(asked))
    assert sum(counts) == sum(len(row) for branch in branches for row in rows_of(branch))


@given(reads())
def test_a_chain_is_one_sequence(asked):
    branches = plan_chains(asked)
    assert seen(branches) == expected(asked)
    for branch in branches:
        assert branch.trunk is None
        for row in branch.rows:
            assert (row.ends == len(row)).all()


@given(reads())
def test_where_there_is_room_no_token_is_run_twice(asked):
    (branch,) = plan_trees(asked, 1000, 1)
    beginnings = {read.tokens[: n + 1] for read in asked for n in range(len(read.tokens))}
    assert sum(map(len, rows_of(branch))) == len(beginnings)


def questions(shots: int, lengths: list[int], choices: int) -> list[Read]:
    """Questions behind shots, each with choices of four tokens."""
    made, token = [], 0
    beginning = tuple(range(1_000_000, 1_000_000 + shots))
    for length in lengths:
        question = beginning + tuple(range(token, token + length))
        token += length
        for _ in range(choices):
            made.append(Read((*question, *range(token, token + 4)), len(question) - 1))
            token += 4
    return made


def test_shots_are_a_trunk_and_choices_share_their_question():
    asked = questions(300, [40] * 20, 4)
    root, branch = plan_trees(asked)
    assert root.trunk is None
    assert not root.rows
    assert len(branch.trunk) == 300
    assert sum(map(len, branch.rows)) == 20 * (40 + 4 * 4)
    assert tokens_of([root, branch], len(asked))[0] == 300 + 40 + 4


def test_a_trunk_stands_behind_another():
    first, second = questions(200, [150] * 3, 60), questions(200, [90] * 3, 60)
    second = [Read((*read.tokens[:200], 7, *read.tokens[200:]), read.first + 1) for read in second]
    branches = plan_trees([*first, *second])
    assert max(branch.num_seen for branch in branches) > 300
    assert max(branch.above for branch in branches) > 0
    assert seen(branches) == expected([*first, *second])


def test_a_token_that_all_begin_with_is_no_trunk():
    asked = [Read((1, *read.tokens), read.first + 1) for read in questions(0, [30] * 50, 4)]
    (branch,) = plan_trees(asked)
    assert branch.trunk is None
    # It is run once in each row.
    assert sum(map(len, branch.rows)) == 50 * (30 + 16) + len(branch.rows)


def test_sequences_that_grow_are_one():
    asked = [Read(tuple(range(n + 1)), n) for n in range(1500)]
    branches = plan_trees(asked)
    assert sum(len(row) for branch in branches for row in rows_of(branch)) == 1500


@pytest.mark.parametrize("shots", [0, 300])
def test_less_than_a_tenth_of_the_batches_is_padding(shots):
    asked = questions(shots, [20 + 40 * n // 200 for n in range(200)], 4)
    limits = Batching(way="trees", tokens=2048, cached=1 << 20, reads=1 << 20)
    for branch in plan_trees(asked):
        made = batches(branch.rows, branch.num_seen, limits)
        assert sum(map(len, made)) == len(branch.rows)
        for batch in made:
            size = len(batch) * max(map(len, batch))
            assert size <= limits.tokens
            assert sum(map(len, batch)) >= LEAST_FILLED * size


def test_a_batch_keeps_every_limit():
    asked = questions(300, [30] * 40, 4)
    for limits in (
        Batching(way="trees", tokens=500, cached=1 << 20, reads=1 << 20),
        Batching(way="trees", tokens=9999, cached=1700, reads=1 << 20),
        Batching(way="trees", tokens=9999, cached=1 << 20, reads=70),
    ):
        branch = plan_trees(asked)[1]
        made = batches(branch.rows, branch.num_seen, limits)
        assert len(made) > 1
        for batch in made:
            longest = max(map(len, batch))
            assert len(batch) * longest <= limits.tokens
            assert len(batch) * (longest + branch.num_seen) <= limits.cached
            assert sum(len(row.places) for row in batch) <= limits.reads
