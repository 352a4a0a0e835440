"""Work handed out to the group, and its results journaled before anyone acts on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from evomerge.record import Candidate, write_part
from evomerge.score import Block, Split
from evomerge.search.run import Run
from evomerge.workers import Finished, Job, WorkerGroup


class Dispatcher:
    """Jobs in, scored or failed candidates out.

    Args:
        run: Whose journal is written.
        group: Who does the work.
    """

    def __init__(self, run: Run, group: WorkerGroup) -> None:
        self.run = run
        self.group = group
        self._queue: deque[Job] = deque()
        self._pending: dict[tuple[str, Split], int] = {}
        self._blocks: dict[Split, list[Block]] = {}

    @property
    def num_pending(self) -> int:
        """Candidates whose work is not finished."""
        return len(self._pending)

    def submit(self, candidate: Candidate, split: Split, shares: int = 1) -> None:
        """Have the blocks of a split that have no result yet scored.

        Args:
            candidate: Which.
            split: On which documents.
            shares: Into how many jobs to cut the work; scores do not depend on it.
        """
        if split not in self._blocks:
            self._blocks[split] = self.run.setup.blocks(split)
        blocks = self._blocks[split]
        measured = candidate.measured.get(split)
        done = measured.blocks if measured is not None else {}
        missing = [(n, block) for n, block in enumerate(blocks) if n not in done]
        recipe_json = self.run.recipe(candidate).to_json()
        shares = max(1, min(shares, len(missing)))
        jobs = [
            Job(candidate.id, recipe_json, split, tuple(missing[k::shares]), len(blocks))
            for k in range(shares)
        ]
        self._pending[candidate.id, split] = len(jobs)
        self._queue.extend(jobs)

    def step(self, timeout_s: float) -> list[Candidate]:
        """Hand out work, wait for some of it, journal what came.

        Returns:
            Candidates whose work is finished now: wholly scored, or failed for good.
        """
        self._hand_out()
        finished = self.group.wait(timeout_s)
        if not finished:
            return []
        ended = self._journal(finished)
        self._hand_out()
        return ended

    def run_all(
        self, candidates: list[Candidate], split: Split, report: Callable[[list[Candidate]], None]
    ) -> None:
        """Score candidates on a split and wait for all of them.

        Args:
            candidates: Those to score.
            split: On which documents.
            report: Called with the candidates that ended, each time some have.
        """
        for candidate in candidates:
            self.submit(candidate, split, self.group.num_actors // len(candidates))
        while self._pending:
            ended = self.step(timeout_s=1.0)
            if ended:
                report(ended)

    def _hand_out(self) -> None:
        batch: list[Job] = []
        while self._queue and len(batch) < self.group.num_idle:
            job = self._queue.popleft()
            self.run.record(
                "dispatched",
                candidate=job.candidate,
                split=job.split,
                blocks=[number for number, _ in job.blocks],
            )
            batch.append(job)
        self.run.commit()
        for job in batch:
            self.group.submit(job)

    def _journal(self, finished: list[Finished]) -> list[Candidate]:
        """One Parquet part, one flush for everything that came back together."""
        results = [(f.job, f.result) for f in finished if f.result is not None]
        # A result of a candidate that was given up meanwhile is dropped.
        results = [(job, r) for job, r in results if (job.candidate, job.split) in self._pending]
        if results:
            tables = [result.table for _, result in results]
            part = write_part(self.run.run_dir, self.run.journal.next_seq, tables)
        ended = []
        for job, result in results:
            self.run.record(
                "result",
                candidate=job.candidate,
                split=job.split,
                num_blocks=job.num_blocks,
                blocks={str(number): moments for number, moments in result.moments.items()},
                part=part,
                num_documents=result.table.num_rows,
                num_tokens=result.num_tokens,
                build_s=result.build_s,
                score_s=result.score_s,
                device=result.device,
                weights_sha256=result.weights_sha256,
            )
            key = job.candidate, job.split
            self._pending[key] -= 1
            if not self._pending[key]:
                del self._pending[key]
                ended.append(self.run.state.candidates[job.candidate])
        for item in finished:
            if item.result is None:
                ended += self._failed(item)
        self.run.commit()
        return ended

    def _failed(self, item: Finished) -> list[Candidate]:
        job = item.job
        candidate = self.run.state.candidates[job.candidate]
        if (job.candidate, job.split) not in self._pending:
            return []
        attempt = candidate.attempts.get(job.split, 0) + 1
        final = attempt >= self.run.setup.config.workers.max_attempts
        self.run.record(
            "failed",
            candidate=job.candidate,
            split=job.split,
            reason=item.reason,
            attempt=attempt,
            final=final,
        )
        if not final:
            self._queue.append(job)
            return []
        given_up = job.candidate, job.split
        self._queue = deque(j for j in self._queue if (j.candidate, j.split) != given_up)
        del self._pending[given_up]
        return [candidate]
