"""What a run took, in words."""

from __future__ import annotations

from typing import Any

from evomerge.choice.results import Results
from evomerge.score import SPLITS


def spent(results: Results, table: dict[str, Any]) -> dict[str, str]:
    """Seconds, documents and tokens of a run, and what all documents would have been.

    Args:
        results: The run's.
        table: Its final table.
    """
    candidates = list(results.state.candidates.values())
    measured = [m for c in candidates for m in c.measured.values()]
    build, score = (sum(getattr(m, name) for m in measured) for name in ("build_s", "score_s"))
    lines = {
        "searching": f"{table['search_seconds']:,.0f} s by the clock",
        "building": f"{build:,.0f} s of all workers together",
        "scoring": f"{score:,.0f} s of all workers together",
    }
    drawn = results.state.started.get("splits", {})
    for split in SPLITS:
        size = sum(len(by_split.get(split, ())) for by_split in drawn.values())
        count = sum(c.is_scored(split) for c in candidates)
        lines[f"{split} documents"] = f"{size:,}; {count:,} models were scored on all of them"
    found = table.get("fidelity")
    if found:
        whole, part = found["num_documents_full"], found["num_documents"]
        lines["documents of the search"] = (
            f"{part:,}; scoring everybody on all documents would have been {whole:,}"
        )
        if "num_tokens" in found:
            lines["tokens of the search"] = (
                f"{found['num_tokens']:,}; all documents would have been about "
                f"{found['num_tokens_full']:,}"
            )
    else:
        tokens = sum(c.num_tokens for c in candidates)
        if tokens:
            lines["tokens on search documents"] = f"{tokens:,}"
    return lines
