"""A candidate whose sample has become all documents: it is measured by what is scored already."""

from __future__ import annotations

import numpy as np

from evomerge.journal import Candidate, rows_for, write_part
from evomerge.score.rows import Moments, moments_of_values
from evomerge.search.run import Run


def measure_whole(run: Run, candidate: Candidate) -> None:
    """Journal the scores of a candidate all of whose search documents are scored in its sample."""
    sampled = candidate.sampled
    assert sampled is not None
    blocks = run.setup.blocks("search")
    documents = [(block.task, number) for block in blocks for number in block.documents]
    parts = list(sampled.parts)
    table = rows_for(run.run_dir, parts, candidate.id, "search", documents, candidate.id)
    measures = run.setup.tasks.measures
    known = {m.name: run.results.documents(candidate.id, "search", m) for m in measures}
    moments: dict[str, dict[str, Moments]] = {}
    for number, block in enumerate(blocks):
        own = [measure for measure in measures if measure.task == block.task]
        moments[str(number)] = {
            m.name: moments_of_values(np.array([known[m.name][d] for d in block.documents]))
            for m in own
        }
    part = write_part(run.run_dir, run.journal.next_seq, [table])
    run.record(
        "result",
        candidate=candidate.id,
        split="search",
        num_blocks=len(blocks),
        blocks=moments,
        part=part,
        # They were counted and timed when they were scored.
        num_documents=0,
        num_tokens=0,
        build_s=0.0,
        score_s=0.0,
        device=None,
    )
    run.commit()
