"""Work handed out to the group, and its results journaled before anyone acts on them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import pyarrow as pa

from evomerge.journal import Candidate, rows_for, write_part
from evomerge.score import Block, Split
from evomerge.search.run import Run
from evomerge.workers import Finished, Job, WorkerGroup

logger = logging.getLogger(__name__)


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
        # Candidates behind one with the same recipe: that is being scored, and that is scored.
        self._followers: dict[tuple[str, Split], list[tuple[Candidate, int]]] = {}
        self._taking: list[tuple[Candidate, Split, Candidate]] = []

    @property
    def num_pending(self) -> int:
        """Candidates whose work is not finished."""
        num_followers = sum(len(followers) for followers in self._followers.values())
        return len(self._pending) + num_followers + len(self._taking)

    def submit_once(self, candidate: Candidate, split: Split, shares: int = 1) -> None:
        """As `submit`, but no recipe is scored twice on a split.

        A candidate whose recipe another one has takes over what that scores, or has scored. What
        fails is not taken over: the next with its recipe is scored itself.
        """
        twins = [c for c in self.run.state.by_recipe[candidate.recipe_sha256] if c is not candidate]
        scored = next((c for c in twins if c.is_scored(split)), None)
        pending = next((c for c in twins if (c.id, split) in self._pending), None)
        if scored is not None:
            self._taking.append((candidate, split, scored))
        elif pending is not None:
            self._followers.setdefault((pending.id, split), []).append((candidate, shares))
        else:
            self.submit(candidate, split, shares)

    def submit(self, candidate: Candidate, split: Split, shares: int = 1) -> None:
        """Have the blocks of a split that have no result yet scored.

        Args:
            candidate: Which.
            split: On which documents.
            shares: Into how many jobs to cut the work; scores do not depend on it.
        """
        missing = self._missing(candidate, split)
        recipe_json = self.run.recipe(candidate).to_json()
        shares = max(1, min(shares, len(missing)))
        num_blocks = len(self._blocks[split])
        jobs = [
            Job(candidate.id, recipe_json, split, tuple(missing[k::shares]), num_blocks)
            for k in range(shares)
        ]
        self._pending[candidate.id, split] = len(jobs)
        self._queue.extend(jobs)

    def step(self, timeout_s: float) -> list[Candidate]:
        """Hand out work, wait for some of it, journal what came.

        Returns:
            Candidates whose work is finished now: wholly scored, or failed for good.
        """
        taken = self._take_over()
        self._hand_out()
        if taken and not self._pending:
            return taken
        finished = self.group.wait(0.0 if taken else timeout_s)
        if not finished:
            return taken
        ended = self._journal(finished)
        self._hand_out()
        return taken + ended

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

    def _missing(self, candidate: Candidate, split: Split) -> list[tuple[int, Block]]:
        """Blocks of a split that a candidate has no result of, with their numbers."""
        if split not in self._blocks:
            self._blocks[split] = self.run.setup.blocks(split)
        measured = candidate.measured.get(split)
        done = measured.blocks if measured is not None else {}
        return [(n, block) for n, block in enumerate(self._blocks[split]) if n not in done]

    def _take_over(self) -> list[Candidate]:
        """Journal results of candidates whose recipe another one was scored with."""
        taking, self._taking = self._taking, []
        tables, results = [], []
        for candidate, split, twin in taking:
            missing = self._missing(candidate, split)
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
                ended.append(self._ended(job))
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
        return [self._ended(job)]

    def _ended(self, job: Job) -> Candidate:
        """The candidate of the last job of a split; those behind it go on."""
        key = job.candidate, job.split
        del self._pending[key]
        for follower, shares in self._followers.pop(key, []):
            self.submit_once(follower, job.split, shares)
        return self.run.state.candidates[job.candidate]
