"""What a journal says, event by event."""

from __future__ import annotations

import math
import random

import pytest

from evomerge.journal import Event, RunState, normal_form
from evomerge.methods.linear import LinearConfig
from evomerge.recipe import Member, Part, Recipe
from evomerge.score import Estimate


def recipe(weight: float = 1.0) -> Recipe:
    return Recipe(
        members={
            "base": Member(sha256="0" * 64, source="/base"),
            "expert": Member(sha256="1" * 64, source="/expert"),
        },
        parts=(
            Part(
                method=LinearConfig(),
                models=("base", "expert"),
                parameters={"weight": {"base": 1.0, "expert": weight}},
            ),
        ),
    )


def numbered(items, start: float = 1000.0) -> list[Event]:
    """Events of (kind, data), a second apart."""
    return [Event(n, start + n, kind, data) for n, (kind, data) in enumerate(items)]


def enqueued(candidate: str, origin: str, genome=None, inbox=None):
    return (
        "enqueued",
        {
            "candidate": candidate,
            "origin": origin,
            "recipe": recipe(0.5).model_dump(mode="json"),
            "genome": genome,
            "inbox": inbox,
        },
    )


def asked(number: int, genome=(0.25, 0.5)):
    return (
        "asked",
        {
            "candidate": f"a{number}",
            "ask": number,
            "genome": list(genome),
            "recipe_sha256": f"hash {number}",
        },
    )


def result(candidate: str, blocks, split: str = "search", num_blocks: int = 2, part: str = "p"):
    return (
        "result",
        {
            "candidate": candidate,
            "split": split,
            "num_blocks": num_blocks,
            "blocks": {str(number): {"task": list(moments)} for number, moments in blocks.items()},
            "part": part,
            "num_documents": sum(moments[0] for moments in blocks.values()),
            "num_tokens": 100,
            "build_s": 0.5,
            "score_s": 2.0,
        },
    )


def failed(candidate: str, attempt: int, final: bool, split: str = "search"):
    return (
        "failed",
        {
            "candidate": candidate,
            "split": split,
            "attempt": attempt,
            "reason": f"reason {attempt}",
            "final": final,
        },
    )


def told(number: int, elapsed_s: float = 7.0):
    data = {"candidate": f"a{number}", "ask": number, "genome": [0.25, 0.5]}
    outcome = {"losses": [-0.5], "standard_errors": [0.1]}
    return ("told", data | {"outcome": outcome, "elapsed_s": elapsed_s})


# A block of three documents 0, 1, 1 and one of two documents 0, 1.
FIRST, SECOND = (3, 2 / 3, 2 / 3), (2, 0.5, 0.5)
FIVE = Estimate(0.6, math.sqrt(0.3 / 5), 5)

RUN = [
    ("run_started", {"name": "toy", "seed": 3}),
    ("stage_started", {"stage": "baselines"}),
    enqueued("base", "baseline"),
    ("dispatched", {"candidate": "base", "split": "search", "blocks": [0, 1]}),
    result("base", {0: FIRST, 1: SECOND}, part="part0"),
    ("stage_ended", {"stage": "baselines"}),
    ("decided", {"what": "batch_tokens", "value": 512}),
    ("stage_started", {"stage": "search"}),
    enqueued("e0000", "enqueued", genome=[0.1, 0.2], inbox="mine.yaml"),
    asked(0),
    asked(1),
    asked(2),
    ("dispatched", {"candidate": "a0", "split": "search", "blocks": [0, 1]}),
    failed("a1", attempt=1, final=False),
    result("a1", {1: SECOND}, part="part1"),
    result("a0", {0: FIRST, 1: SECOND}, part="part2"),
    failed("a2", attempt=1, final=False),
    failed("a2", attempt=2, final=True),
    told(2, elapsed_s=3.0),
    told(0, elapsed_s=5.0),
    ("rebased", {"reason": "another CPU"}),
    ("stopped", {"reason": "interrupted"}),
]


def state_of(items) -> RunState:
    state = RunState()
    for event in numbered(items):
        state.apply(event)
    return state


class TestRunState:
    def test_candidates(self):
        state = state_of(RUN)
        assert list(state.candidates) == ["base", "e0000", "a0", "a1", "a2"]
        base, outside, first, second, third = state.candidates.values()
        assert (base.origin, base.genome, base.ask, base.told) == ("baseline", None, None, None)
        assert base.recipe_sha256 == recipe(0.5).sha256
        assert base.recipe_json == recipe(0.5).to_json()
        assert (outside.origin, outside.genome) == ("enqueued", (0.1, 0.2))
        assert outside.scores("search") is None
        assert (first.origin, first.ask, first.genome) == ("asked", 0, (0.25, 0.5))
        assert (first.recipe_sha256, first.recipe_json) == ("hash 0", None)
        assert (first.told, first.failed) == (1, None)
        assert (first.started_at, first.ended_at) == (1009.0, 1015.0)
        assert second.scores("search") is None
        assert (second.num_attempts, second.failed, second.told) == (1, None, None)
        assert (third.num_attempts, third.failed, third.told) == (2, "reason 2", 0)

    def test_scores(self):
        state = state_of(RUN)
        for name in ("base", "a0"):
            scores = state.candidates[name].scores("search")
            assert list(scores) == ["task"]
            assert scores["task"].value == pytest.approx(FIVE.value)
            assert scores["task"].standard_error == pytest.approx(FIVE.standard_error)
            assert scores["task"].num_documents == FIVE.num_documents
            assert state.candidates[name].scores("validation") is None
        measured = state.candidates["a0"].measured["search"]
        assert (measured.parts, measured.build_s) == ({"part2": (0, 1)}, 0.5)
        assert measured.score_s == 2.0

    def test_the_run(self):
        state = state_of(RUN)
        assert state.started == {"name": "toy", "seed": 3}
        assert state.started_at == 1000.0
        assert state.stages == {"baselines": "ended", "search": "started"}
        assert state.decided == {"batch_tokens": 512}
        assert state.inbox == {"mine.yaml"}
        assert state.stopped == "interrupted"
        assert state.elapsed_s == 5.0

    def test_counts(self):
        state = state_of(RUN)
        assert (state.phases[0].num_told, state.num_searched, state.num_failed) == (2, 4, 1)
        # Baselines and other splits are not part of the search.
        assert state.phases[0].num_documents == 2 + 5
        state.apply(Event(99, 0.0, *result("a0", {0: FIRST}, split="validation")))
        assert state.phases[0].num_documents == 7

    def test_what_the_optimizer_goes_on_from(self):
        events = state_of(RUN).phases[0].events
        assert [(event.kind, event.data["ask"]) for event in events] == [
            ("asked", 0),
            ("asked", 1),
            ("asked", 2),
            ("told", 2),
            ("told", 0),
        ]

    def test_of_origin(self):
        state = state_of(RUN)
        assert [c.id for c in state.of_origin("asked", "enqueued")] == ["e0000", "a0", "a1", "a2"]

    def test_a_stage_entered_again_is_not_stopped(self):
        state = state_of([*RUN, ("stage_started", {"stage": "search"})])
        assert state.stopped is None
        assert state.stages["search"] == "started"

    def test_holdout(self):
        items = [
            *RUN,
            ("holdout_opened", {"candidates": ["a0", "base"]}),
            ("holdout_opened", {"candidates": ["base", "a1"]}),
        ]
        assert state_of(items).holdout_opened == ["a0", "base", "a1"]

    def test_a_baseline_that_fails_is_no_failed_search(self):
        state = state_of([*RUN, failed("base", 2, final=True)])
        assert state.candidates["base"].failed == "reason 2"
        assert state.num_failed == 1


class TestResults:
    def scores(self, *results):
        state = state_of([asked(0), *results])
        return state.candidates["a0"].scores("search")

    def test_the_first_result_of_a_block_counts(self):
        other = (3, 0.0, 0.0)
        plain = self.scores(result("a0", {0: FIRST}), result("a0", {1: SECOND}))
        assert (
            self.scores(
                result("a0", {0: FIRST}), result("a0", {0: other}), result("a0", {1: SECOND})
            )
            == plain
        )
        assert self.scores(result("a0", {0: FIRST}), result("a0", {0: other, 1: SECOND})) == plain
        assert (
            self.scores(result("a0", {0: FIRST, 1: SECOND}), result("a0", {0: other, 1: other}))
            == plain
        )

    def test_how_blocks_were_shared_does_not_matter(self):
        rng = random.Random(0)
        blocks = {n: (rng.randrange(1, 9), rng.random(), rng.random()) for n in range(12)}
        whole = self.scores(result("a0", blocks, num_blocks=12))
        for _ in range(20):
            order = rng.sample(range(12), 12)
            cut = rng.randrange(1, 11)
            shares = [
                result("a0", {n: blocks[n] for n in share}, num_blocks=12)
                for share in (order[:cut], order[cut:])
            ]
            # Bit for bit: a search whose work is shared differently asks the same points.
            assert self.scores(*shares) == whole

    def test_no_score_before_the_last_block(self):
        assert self.scores(result("a0", {1: SECOND})) is None
        assert self.scores(result("a0", {1: SECOND}), result("a0", {1: SECOND})) is None
        assert self.scores(result("a0", {1: SECOND}), result("a0", {0: FIRST})) is not None

    def test_splits_are_apart(self):
        state = state_of(
            [asked(0), result("a0", {0: FIRST}), result("a0", {1: SECOND}, split="validation")]
        )
        assert state.candidates["a0"].scores("search") is None
        assert state.candidates["a0"].scores("validation") is None


class TestNormalForm:
    def test_times_and_attempts_do_not_matter(self):
        untroubled = [
            item
            for item in RUN
            if item[0] not in ("dispatched", "stopped", "rebased", "stage_started")
            and not (item[0] == "failed" and not item[1]["final"])
        ]
        assert len(untroubled) < len(RUN)
        assert normal_form(numbered(RUN)) == normal_form(numbered(untroubled, start=5e8))

    def test_speed_and_parts_do_not_matter(self):
        slow = [
            (kind, data | {"build_s": 99.0, "score_s": 99.0, "part": "another"})
            if kind == "result"
            else (kind, data)
            for kind, data in RUN
        ]
        assert normal_form(numbered(slow)) == normal_form(numbered(RUN))

    def test_the_sharing_of_blocks_does_not_matter(self):
        shared = []
        for item in RUN:
            if item[0] == "result" and len(item[1]["blocks"]) == 2:
                name = item[1]["candidate"]
                shared += [result(name, {1: SECOND}), result(name, {0: FIRST})]
            else:
                shared.append(item)
        assert normal_form(numbered(shared)) == normal_form(numbered(RUN))

    @pytest.mark.parametrize(
        ("place", "item"),
        [
            (9, asked(0, genome=(0.25, 0.5000000000000001))),
            (9, ("asked", asked(0)[1] | {"recipe_sha256": "another"})),
            (9, ("asked", asked(0)[1] | {"candidate": "b0"})),
            (15, result("a0", {0: FIRST, 1: (2, 0.5, 0.25)})),
            (15, result("a0", {0: FIRST})),
            (17, failed("a2", attempt=2, final=False)),
            (18, told(1)),
        ],
    )
    def test_everything_else_does(self, place, item):
        items = list(RUN)
        assert items[place] != item
        items[place] = item
        if item[1]["candidate"] == "b0":
            items = items[:10]
        assert normal_form(numbered(items)) != normal_form(numbered(RUN[: len(items)]))

    def test_the_order_of_tells_does(self):
        items = list(RUN)
        items[18], items[19] = items[19], items[18]
        assert normal_form(numbered(items)) != normal_form(numbered(RUN))

    def test_a_score_of_one_document_equals_itself(self):
        # Its standard error is NaN, which equals nothing unless it is the same object.
        items = [asked(0), result("a0", {0: (1, 0.5, 0.0)}, num_blocks=1)]
        assert normal_form(numbered(items)) == normal_form(numbered(items))
