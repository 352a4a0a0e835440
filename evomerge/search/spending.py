"""What a phase has spent of its budget."""

from __future__ import annotations

from datetime import datetime

from evomerge.search.run import Run
from evomerge.search.setup import num_documents


class Spending:
    """Candidates, documents and time of a phase.

    Args:
        run: The run.
        phase: Number of the phase.
    """

    def __init__(self, run: Run, phase: int) -> None:
        self._run = run
        self._state = run.state.phases[phase]
        self._budget = run.setup.config.all_phases[phase].budget
        self._in_order = run.setup.config.search.tell == "in_order"

    def out_of_time(self, elapsed_s: float) -> str | None:
        """Which end by time is reached, if one is.

        Args:
            elapsed_s: Seconds of searching so far.
        """
        budget = self._budget
        if budget.seconds is not None and elapsed_s >= budget.seconds:
            return f"budget of {budget.seconds:g} seconds"
        if budget.deadline is not None:
            now = datetime.now(budget.deadline.tzinfo)
            if now >= budget.deadline:
                return f"deadline {budget.deadline.isoformat()}"
        return None

    def over(self) -> str | None:
        """Which end by what is asked for is reached, if one is."""
        documents, tokens = self._budget.documents, self._budget.tokens
        if self.has_asked_enough():
            return f"budget of {self._budget.candidates} candidates"
        if documents is not None and self._num_documents() >= documents:
            return f"budget of {documents} documents"
        if tokens is not None and self._state.num_tokens >= tokens:
            # Those of candidates under way are not known: they follow from what models write.
            return f"budget of {tokens} tokens"
        return None

    def has_asked_enough(self) -> bool:
        """Whether no candidate more may be asked."""
        candidates = self._budget.candidates
        return candidates is not None and self._state.num_searched >= candidates

    def _num_documents(self) -> int:
        """Documents that count: in order all those of every candidate under way."""
        if not self._in_order:
            return self._state.num_documents
        whole = num_documents(self._run.setup, "search")
        sampled = sum(
            whole if name in group.full else group.num_documents_of(name)
            for group in self._state.sets
            for name in group.candidates
        )
        num_sampled = sum(len(group.candidates) for group in self._state.sets)
        return (self._state.num_searched - num_sampled) * whole + sampled
