"""Who is to blame: a fault is its machine's until it is shown to be the candidate's."""

from __future__ import annotations

import logging

import pytest

from evomerge.errors import CandidateError, EvomergeError, InputError, StoppedError
from evomerge.search.dispatch import Dispatcher
from evomerge.testing.actors import (
    DeathError,
    HangError,
    NodeDeathError,
    SimulatedGroup,
    StickyError,
)
from evomerge.testing.workers import SimulatedWorker
from evomerge.workers import WorkersConfig
from runs import new_run


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path, score={"block_documents": 4})
    yield run
    run.close()


@pytest.fixture
def search(run):
    """Scores candidates with simulated actors and gives the journal's failures.

    `failures` is what a job raises; `settings` are the group's.
    """

    def search(failures=lambda job, tries: None, count=4, seconds=lambda job: 1.0, **settings):
        worker = SimulatedWorker(run.setup.tasks.measures, failures=failures, seconds=seconds)
        dispatcher = Dispatcher(run, SimulatedGroup(worker, **settings))
        for number in range(count):
            dispatcher.submit(run.add_asked(number, (0.1 * number, 0.5)), "search")
        while dispatcher.num_pending:
            dispatcher.step(1.0)
        return [event.data for event in run.journal.events if event.kind == "failed"]

    return search


def given_up(run):
    """Candidates that are recorded as failed; every other one has its scores."""
    for candidate in run.state.candidates.values():
        assert (candidate.failed is None) == candidate.is_scored("search")
    return [c.id for c in run.state.candidates.values() if c.failed is not None]


def only(candidate, error, times=10**6, block=None):
    """Failures of one candidate's jobs, or of one of them, the first times that they are tried."""

    def failures(job, tries):
        is_it = job.candidate == candidate and block in (None, job.key[2][0])
        return error() if is_it and tries < times else None

    return failures


class TwoArgumentsError(Exception):
    """One that no pickle brings back."""

    def __init__(self, what, how):
        super().__init__(f"{what} {how}")
        self.held = lambda: what


class SilentError(Exception):
    """One whose message cannot be made."""

    def __str__(self):
        raise RuntimeError("not even that")


class TestCandidates:
    def test_what_says_that_it_cannot_be_scored_is_not_tried_again(self, run, search):
        (failed,) = search(only("c00001", lambda: CandidateError("not finite")), num_actors=2)
        assert (failed["final"], failed["blame"], failed["attempt"]) == (True, "candidate", 1)
        assert failed["reason"] == "CandidateError: not finite"
        assert given_up(run) == ["c00001"]

    def test_what_has_no_explanation_is_tried_by_two_actors(self, run, search):
        tried = []

        def failures(job, tries):
            if job.candidate == "c00001":
                tried.append(tries)
                return ZeroDivisionError("division by zero")
            return None

        failed = search(failures, num_actors=2)
        assert given_up(run) == ["c00001"]
        assert [(data["blame"], data["final"]) for data in failed if data["final"]] == [
            ("error", True)
        ]
        assert max(tried) == 1

    @pytest.mark.parametrize("num_actors", [1, 2, 3])
    def test_what_fails_once_is_scored_by_another(self, run, search, num_actors):
        failed = search(only("c00001", RuntimeError, times=1, block=2), num_actors=num_actors)
        assert given_up(run) == []
        assert [(data["blame"], data["final"], data["block"]) for data in failed] == [
            ("error", False, 2)
        ]

    def test_the_other_is_not_the_one_that_it_failed_on(self, run):
        on = []

        def failures(job, tries):
            if job.key != ("c00001", "search", (2,)):
                return None
            on.append([actor.number for actor in group._in("busy") if actor.job == job])
            return RuntimeError("x") if tries < 1 else None

        worker = SimulatedWorker(
            run.setup.tasks.measures, failures=failures, seconds=lambda job: 1.0
        )
        group = SimulatedGroup(worker, 3)
        dispatcher = Dispatcher(run, group)
        for number in range(4):
            dispatcher.submit(run.add_asked(number, (0.1 * number, 0.5)), "search")
        while dispatcher.num_pending:
            dispatcher.step(1.0)
        (first,), (second,) = on
        assert first != second

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (lambda: TwoArgumentsError("this", "that"), "TwoArgumentsError: this that"),
            (SilentError, "SilentError: "),
            (lambda: KeyError("weights"), "KeyError: 'weights'"),
            (lambda: ValueError("one\ntwo " * 900), "ValueError: one"),
        ],
    )
    def test_any_exception_becomes_text(self, run, search, error, reason):
        failed = search(only("c00000", error), num_actors=2)
        assert all(data["reason"].startswith(reason) for data in failed)
        assert all(len(data["reason"]) <= 500 for data in failed)
        assert given_up(run) == ["c00000"]

    def test_the_cause_is_said(self, run, search):
        def error():
            try:
                try:
                    raise OSError("no such file")
                except OSError as cause:
                    raise CandidateError("it cannot be built") from cause
            except CandidateError as raised:
                return raised

        (failed,) = search(only("c00000", error))
        assert failed["reason"] == "CandidateError: it cannot be built (from OSError: no such file)"

    def test_one_that_kills_every_actor_is_given_up(self, run, search):
        failed = search(only("c00001", lambda: DeathError("killed")), num_actors=3)
        assert given_up(run) == ["c00001"]
        last = failed[-1]
        assert (last["blame"], last["attempt"], last["final"]) == ("incident", 3, True)
        assert last["reason"] == "the worker died: killed"
        # Its jobs were tried one at a time once the first had killed an actor.
        assert len(failed) <= 4


class TestActors:
    def test_a_sticky_error_is_the_actors(self, run, search):
        """Every job fails on it behind the first: it is replaced, and nobody is given up."""
        failed = search(
            only("c00001", lambda: StickyError("CUDA error"), times=1, block=0), num_actors=2
        )
        assert given_up(run) == []
        assert [(data["blame"], data["final"]) for data in failed] == [("incident", False)]

    def test_one_that_scores_the_base_otherwise_is_replaced(self, run, search):
        class QuietlyStickyError(StickyError):
            pass

        failed = search(
            only("c00001", lambda: QuietlyStickyError("odd"), times=1, block=0), num_actors=1
        )
        assert given_up(run) == []
        assert "the worker scores the base otherwise now" in failed[0]["reason"]

    def test_three_jobs_that_die_with_one_machine_are_one_incident(self, run, search):
        """Six actors on two machines share two candidates; one machine is lost."""
        failed = search(
            only("c00001", lambda: NodeDeathError("power"), times=1, block=3),
            count=2,
            num_actors=6,
            num_nodes=2,
        )
        assert len(failed) >= 2
        assert all(data["attempt"] == 1 and not data["final"] for data in failed)
        assert all("with its machine node" in data["reason"] for data in failed)
        assert given_up(run) == []

    @pytest.mark.parametrize("deaths", [1, 2])
    def test_deaths_of_others_are_not_counted_for_a_candidate(self, run, search, deaths):
        """Each of its jobs is hit, none as often as it takes."""
        failed = search(only("c00001", DeathError, times=deaths), num_actors=3)
        assert len(failed) == 6 * deaths
        assert given_up(run) == []

    def test_one_that_hangs_is_ended_in_time(self, run, search):
        """Once some of its like have come back, the limit is known; no setting says it."""
        failed = search(only("c00003", HangError, times=1, block=5), num_actors=1)
        assert given_up(run) == []
        assert [data["reason"] for data in failed] == ["no result within 60 s"]

    def test_a_setting_is_the_limit(self, run, search):
        config = WorkersConfig(job_timeout_s=5.0)
        failed = search(only("c00000", HangError, times=1, block=0), num_actors=1, config=config)
        assert [data["reason"] for data in failed] == ["no result within 5 s"]
        assert given_up(run) == []

    def test_the_last_straggler_is_overtaken(self, run, search):
        """A job that takes far longer than its like is given to an idle actor as well."""
        slow = []

        def seconds(job):
            if job.key == ("c00003", "search", (5,)) and not slow:
                slow.append(job)
                return 50.0
            return 1.0

        failed = search(seconds=seconds, num_actors=2)
        assert failed == [] and given_up(run) == []
        assert len(slow) == 1

    def test_a_start_that_fails_takes_no_job_with_it(self, run, search):
        def starts(actor, node):
            return DeathError("out of memory") if actor in (1, 2) else None

        failed = search(only("c00001", DeathError, times=1, block=0), num_actors=2, starts=starts)
        assert len(failed) == 1 and given_up(run) == []

    def test_a_job_is_given_to_who_is_ready_alone(self, run, search):
        failed = search(num_actors=3, start_s=90.0)
        assert failed == [] and given_up(run) == []

    def test_a_machine_without_the_files_is_left_out(self, run, search, caplog):
        starts_on = []

        def starts(_actor, node):
            starts_on.append(node)
            return InputError("model 'base' is not there") if node == "node1" else None

        with caplog.at_level(logging.WARNING):
            search(num_actors=4, num_nodes=2, starts=starts, count=20)
        assert given_up(run) == []
        assert starts_on.count("node1") <= 5
        assert "cannot start on node1: model 'base' is not there" in caplog.text


class TestNobody:
    def test_what_none_can_open_is_the_users_mistake(self, search):
        with pytest.raises(InputError, match="model 'base' is not there"):
            search(starts=lambda actor, node: InputError("model 'base' is not there"), num_actors=2)

    def test_the_last_cause_is_said_where_none_can_start(self, search):
        with pytest.raises(EvomergeError, match="none can start, in 3 tries; the last: .*memory"):
            search(starts=lambda actor, node: DeathError("out of memory"))

    def test_none_is_ever_ready(self, search):
        with pytest.raises(EvomergeError, match=r"no actor was ready within 600 s"):
            search(starts=lambda actor, node: HangError())

    def test_all_are_lost_and_none_can_be_had(self, run, search, caplog):
        """The search says what it waits for, and stops in the end; no candidate is to blame."""

        def starts(actor, node):
            return HangError() if actor > 0 else None

        config = WorkersConfig(wait_s=900.0)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(StoppedError, match=r"no worker could be had for 900 s.*power"),
        ):
            search(
                only("c00001", lambda: DeathError("power"), times=1), starts=starts, config=config
            )
        said = [line for line in caplog.messages if line.startswith("no worker is ready for")]
        assert 12 <= len(said) <= 15
        assert not [c for c in run.state.candidates.values() if c.failed is not None]

    def test_a_machine_that_kills_whatever_comes_stops_the_search(self, run, search):
        """Each job is hit less often than would blame its candidate."""
        with pytest.raises(StoppedError, match="workers were lost in a row"):
            search(lambda job, tries: DeathError("power") if tries < 2 else None, count=90)
        assert not [c for c in run.state.candidates.values() if c.failed is not None]


def test_what_went_wrong_is_counted_on_after_a_resume(run):
    """A candidate that takes its machine down with it is not tried for ever."""
    candidate = run.add_asked(0, (0.1, 0.5))
    failures = only("c00000", DeathError)
    for expected in (1, 2, 3):
        worker = SimulatedWorker(run.setup.tasks.measures, failures=failures)
        dispatcher = Dispatcher(run, SimulatedGroup(worker))
        dispatcher.submit(candidate, "search")
        while not candidate.num_attempts >= expected:
            dispatcher.step(1.0)
    assert candidate.failed is not None
