"""What a phase's optimizer asks, journaled as candidates: one by one, or in comparison sets."""

from __future__ import annotations

from evomerge.journal import Candidate
from evomerge.optimize import Ask, Done, Optimizer
from evomerge.search.assistance import Assistance
from evomerge.search.run import Run
from evomerge.search.spending import Spending


class Asking:
    """The asks of one phase.

    Args:
        run: The run.
        optimizer: Who asks.
        budget: How many candidates may be asked.
        assistance: Draws the samples of sets; None: all documents are scored.

    Attributes:
        exhausted: Why the optimizer asks nothing more; None: it may.
        unsampled: Candidates that were asked when a driver died before it had drawn their sample.
    """

    def __init__(
        self, run: Run, optimizer: Optimizer, budget: Spending, assistance: Assistance | None
    ) -> None:
        self._run = run
        self._optimizer = optimizer
        self._budget = budget
        self._assistance = assistance
        self.exhausted: str | None = None
        self.unsampled: list[Candidate] = []

    def one(self, *, begins_set: bool = False) -> Candidate | None:
        """The next candidate; None: the optimizer waits, or is done.

        Args:
            begins_set: Whether it is a set's first, which may be one that is foretold to be good.
        """
        asked = self._optimizer.ask()
        if isinstance(asked, Done):
            self.exhausted = f"the optimizer is done: {asked.reason}"
        if not isinstance(asked, Ask):
            return None
        if begins_set and self._assistance is not None:
            better = self._assistance.foretold_best(self._optimizer, asked.number)
            if better is not None:
                return self._run.add_asked(asked.number, better, proposed=asked.genome)
        return self._run.add_asked(asked.number, asked.genome)

    def a_set(self, assistance: Assistance, *, asks: bool = True) -> list[Candidate]:
        """Candidates that are compared with each other, asked together.

        Args:
            assistance: Draws their sample.
            asks: Whether any may be asked beside those that were asked already.
        """
        found, self.unsampled = self.unsampled, []
        while asks and len(found) < assistance.set_size and not self._budget.has_asked_enough():
            if not found and self._budget.over():
                break
            candidate = self.one(begins_set=not found)
            if candidate is None:
                break
            found.append(candidate)
        if found:
            assistance.open(found)
        return found
