"""Work handed out to the group, and its results journaled before anyone acts on them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import product

import pyarrow as pa

from evomerge.errors import StoppedError
from evomerge.journal import Candidate, rows_for, write_part
from evomerge.score import SPLITS, Split
from evomerge.search.run import Run
from evomerge.search.works import Key, Plan, Work
from evomerge.stopping import stopping
from evomerge.workers import Finished, Job, JobResult, WorkerGroup

logger = logging.getLogger(__name__)

FLUSH_S = 10.0
"""How long results may be in memory alone, while their candidate is not finished.

Each flush is a file more to read the candidate's documents from; a kill loses what is not flushed.
"""

NUM_ERRORS = 2
"""Exceptions without an explanation, over one job, behind which its candidate is given up."""


class Dispatcher:
    """Jobs in, scored or failed candidates out.

    A job is one block. A worker goes on with the candidate that it holds; else it begins the oldest
    that nobody has begun, or helps with the oldest. Scores depend on none of that.

    Args:
        run: Whose journal is written.
        group: Who does the work.
    """

    def __init__(self, run: Run, group: WorkerGroup) -> None:
        self.run = run
        self.group = group
        # In order of submission.
        self._works: dict[Key, Work] = {}
        self._came: list[tuple[Job, JobResult]] = []
        self._came_since = 0.0
        self._plan = Plan(run.setup)
        # Candidates behind one with the same recipe: that is being scored, and that is scored.
        self._followers: dict[Key, list[Candidate]] = {}
        self._taking: list[tuple[Candidate, Split, Candidate]] = []

    @property
    def num_pending(self) -> int:
        """Candidates whose work is not finished."""
        num_followers = sum(len(followers) for followers in self._followers.values())
        return len(self._works) + num_followers + len(self._taking)

    def submit_once(self, candidate: Candidate, split: Split) -> None:
        """As `submit`, but no recipe is scored twice on a split.

        A candidate whose recipe another one has takes over what that scores, or has scored. What
        fails is not taken over: the next with its recipe is scored itself.
        """
        twins = [c for c in self.run.state.by_recipe[candidate.recipe_sha256] if c is not candidate]
        scored = next((c for c in twins if c.is_scored(split)), None)
        pending = next((c for c in twins if (c.id, split) in self._works), None)
        if scored is not None:
            self._taking.append((candidate, split, scored))
        elif pending is not None:
            self._followers.setdefault((pending.id, split), []).append(candidate)
        else:
            self.submit(candidate, split)

    def submit(self, candidate: Candidate, split: Split, *, whole: bool = False) -> None:
        """Have the blocks of a split that have no result yet scored.

        Of a candidate that is searched by a sample, on search documents: those of its sample,
        unless the whole split is asked for.
        """
        sample = None
        if split == "search" and candidate.is_searched_by_sample and not whole:
            assert candidate.sampled is not None
            sample = candidate.sampled.group.number
        missing = self._plan.missing(candidate, split, whole=whole)
        recipe_json = self.run.recipe(candidate).to_json()
        num_blocks = len(self._plan.split(split) if whole else self._plan.blocks(candidate, split))
        work = Work(
            candidate,
            split,
            deque(
                Job(candidate.id, recipe_json, split, (entry,), num_blocks, sample)
                for entry in missing
            ),
            {number for number, _ in missing},
            sample=sample,
        )
        for (of_split, number, blame), count in candidate.faults.items():
            if of_split == split:
                work.faults[number, blame] = count
        self._works[work.key] = work

    def step(self, timeout_s: float) -> list[Candidate]:
        """Hand out work, wait for some of it, journal what came.

        Returns:
            Candidates whose work is finished now: wholly scored, or failed for good.

        Raises:
            StoppedError: A signal asked for that; what was under way is journaled.
        """
        with stopping() as stop:
            stop.check()
            if stop.gently:
                self._drain()
                raise StoppedError("interrupted")
        taken = self._take_over()
        if taken and not self._works:
            return taken
        self._hand_out()
        ended: list[Candidate] = []
        for item in self.group.wait(0.0 if taken else self._patience(timeout_s)):
            work = self._works.get((item.job.candidate, item.job.split))
            if work is not None:
                # A result of a candidate that was given up meanwhile is dropped.
                ended += self._take(work, item)
        if self._came and self._patience(FLUSH_S) <= 0.0:
            self.flush()
        elif ended:
            self.flush({candidate.id for candidate in ended})
        self._hand_out()
        return taken + ended

    def run_all(
        self,
        candidates: list[Candidate],
        split: Split,
        report: Callable[[list[Candidate]], None],
        *,
        whole: bool = False,
    ) -> None:
        """Score candidates on a split and wait for all of them.

        Args:
            candidates: Those to score.
            split: On which documents.
            report: Called with the candidates that ended, each time some have.
            whole: Also on the documents that a candidate's sample leaves out.
        """
        for candidate in candidates:
            self.submit(candidate, split, whole=whole)
        while self._works:
            ended = self.step(timeout_s=1.0)
            if ended:
                report(ended)

    def flush(self, of: Collection[str] | None = None) -> None:
        """Journal what came, of some candidates or of all: one Parquet part, and one commit."""
        by_key: dict[Key, list[tuple[Job, JobResult]]] = {}
        left = []
        for job, result in self._came:
            if of is None or job.candidate in of:
                by_key.setdefault((job.candidate, job.split), []).append((job, result))
            else:
                left.append((job, result))
        self._came = left
        if by_key:
            tables = [result.table for entries in by_key.values() for _, result in entries]
            part = write_part(self.run.run_dir, self.run.journal.next_seq, tables)
        for (candidate, split), entries in by_key.items():
            results = [result for _, result in entries]
            self.run.record(
                "result",
                candidate=candidate,
                split=split,
                num_blocks=entries[0][0].num_blocks,
                **({} if entries[0][0].sample is None else {"sample": entries[0][0].sample}),
                blocks={str(n): m for result in results for n, m in result.moments.items()},
                part=part,
                num_documents=sum(result.table.num_rows for result in results),
                num_tokens=sum(result.num_tokens for result in results),
                **_more_counts(results),
                build_s=sum(result.build_s for result in results),
                score_s=sum(result.score_s for result in results),
                device=results[-1].device,
                weights_sha256=next((r.weights_sha256 for r in results if r.weights_sha256), None),
            )
        self.run.commit()

    def _drain(self) -> None:
        """Take in what is under way; nobody acts on it."""
        while self.group.num_busy:
            for item in self.group.wait(1.0):
                work = self._works.get((item.job.candidate, item.job.split))
                if work is not None:
                    self._take(work, item)
        self.flush()

    def _patience(self, timeout_s: float) -> float:
        """How long to wait, where results wait in memory."""
        if not self._came:
            return timeout_s
        return max(0.0, min(timeout_s, self._came_since + FLUSH_S - self.group.clock()))

    def _take_over(self) -> list[Candidate]:
        """Journal results of candidates whose recipe another one was scored with."""
        taking, self._taking = self._taking, []
        tables, results = [], []
        for candidate, split, twin in taking:
            done = candidate.measured[split].blocks if split in candidate.measured else {}
            missing = [(n, b) for n, b in enumerate(self._plan.split(split)) if n not in done]
            measured = twin.measured[split]
            documents = [(block.task, d) for _, block in missing for d in block.documents]
            try:
                table = rows_for(
                    self.run.run_dir, list(measured.parts), twin.id, split, documents, candidate.id
                )
            except (OSError, pa.ArrowInvalid) as error:
                logger.warning("%s is scored like %s: %s", candidate.id, twin.id, error)
                self.submit(candidate, split)
                continue
            tables.append(table)
            blocks = {str(number): measured.blocks[number] for number, _ in missing}
            results.append((candidate, split, twin, blocks, table.num_rows))
        if not results:
            return []
        part = write_part(self.run.run_dir, self.run.journal.next_seq, tables)
        for candidate, split, twin, blocks, num_documents in results:
            measured = twin.measured[split]
            self.run.record(
                "result",
                candidate=candidate.id,
                split=split,
                num_blocks=measured.num_blocks,
                blocks=blocks,
                part=part,
                # Of the budget it takes what a scored one takes.
                num_documents=num_documents,
                num_tokens=0,
                build_s=0.0,
                score_s=0.0,
                device=measured.device,
                weights_sha256=measured.weights_sha256,
                same_as=twin.id,
            )
        self.run.commit()
        return [candidate for candidate, *_ in results]

    def _hand_out(self) -> None:
        while self.group.num_idle:
            found = self._next()
            if found is None:
                break
            work, job = found
            if not work.is_begun:
                work.is_begun = True
                self.run.record(
                    "dispatched",
                    candidate=job.candidate,
                    split=job.split,
                    blocks=sorted(work.left),
                )
            work.running[job.key[2][0]] += 1
            self.group.submit(job)

    def _next(self) -> tuple[Work, Job] | None:
        """The job for an idle worker, taken from its queue; None: there is none."""
        # Asked for with every block, of thousands of workers: most often nothing waits, or a worker
        # goes on with what it holds.
        if any(work.queued for work in self._works.values()):
            for candidate, split in product(dict.fromkeys(self.group.loaded), SPLITS):
                held = self._works.get((candidate, split))
                if held is not None and self._may(held):
                    return held, held.queued.popleft()
            queued = [work for work in self._works.values() if work.queued]
            for work in sorted(queued, key=lambda work: work.is_begun):
                if self._may(work):
                    return work, work.queued.popleft()
        job = self.group.slow()
        if job is None:
            return None
        slow = self._works.get((job.candidate, job.split))
        return None if slow is None or slow.is_suspect else (slow, job)

    def _may(self, work: Work) -> bool:
        job = work.first
        return job is not None and self.group.can_take(job)

    def _take(self, work: Work, item: Finished) -> list[Candidate]:
        """Keep a result for the next flush, or journal a failure.

        Returns:
            The candidate, if its work is finished, and its followers if they are given up.
        """
        number = item.job.key[2][0]
        # One that was given out in a round before was a duplicate's.
        work.running[number] = max(0, work.running[number] - 1)
        if number not in work.left:
            # Another worker was faster.
            return []
        if item.result is None:
            return self._take_failure(work, item)
        if not self._came:
            self._came_since = self.group.clock()
        self._came.append((item.job, item.result))
        work.left.discard(number)
        return [] if work.left else self._ended(work)

    def _take_failure(self, work: Work, item: Finished) -> list[Candidate]:
        number = item.job.key[2][0]
        work.faults[number, item.blame] += 1
        attempt = work.faults[number, item.blame]
        most = {
            "candidate": 1,
            "error": NUM_ERRORS,
            "incident": self.run.setup.config.workers.max_attempts,
        }
        final = attempt >= most[item.blame]
        self.run.record(
            "failed",
            candidate=work.candidate.id,
            split=work.split,
            reason=item.reason,
            attempt=attempt,
            final=final,
            blame=item.blame,
            block=number,
            trace=item.trace,
        )
        if final or item.blame == "incident":
            # What may have taken a worker with it is not forgotten, whatever comes next.
            self.run.commit()
        if final:
            return self._ended(work)
        work.is_suspect |= item.blame == "incident"
        if not work.running[number]:
            # Before its others: whether it is at fault is known the sooner.
            work.queued.appendleft(item.job)
        return []

    def _ended(self, work: Work) -> list[Candidate]:
        """The candidate of finished work; those behind it go on."""
        del self._works[work.key]
        if work.left:
            # What came of it is kept: it may be asked for again.
            work.queued.clear()
        self._behind(work)
        return [work.candidate]

    def _behind(self, work: Work) -> None:
        followers = self._followers.pop(work.key, [])
        if followers and not work.left:
            self.flush()
        for follower in followers:
            self.submit_once(follower, work.split)


def _more_counts(results: Sequence[JobResult]) -> dict[str, int]:
    """What is counted where it occurs."""
    counts = {
        "num_answer_tokens": sum(result.num_answer_tokens for result in results),
        "num_cached": sum(result.num_cached for result in results),
    }
    return {name: count for name, count in counts.items() if count}
