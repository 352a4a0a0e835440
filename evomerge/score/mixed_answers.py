"""Blocks whose documents ask in several ways, such as for a text and for a log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evomerge.files import sha256_json
from evomerge.score.answers import Answers, Asker, Asking

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


def prepare(asker: Asker, instances: Sequence[Instance]) -> Asking:
    """Make a block's requests ready, those of each type by themselves.

    Args:
        asker: Takes requests of one type.
        instances: The requests, in the task's order.
    """
    types = list(dict.fromkeys(instance.request_type for instance in instances))
    if len(types) == 1:
        return asker.prepare(instances)
    parts = []
    for each in types:
        places = [n for n, instance in enumerate(instances) if instance.request_type == each]
        parts.append((places, asker.prepare([instances[place] for place in places])))
    return MixedAsking(parts)


class MixedAsking:
    """Requests of several types, as one `Asking`.

    Args:
        parts: The requests of each type, with their places in the task's order.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[int], Asking]]) -> None:
        self._parts = parts
        self.num_tokens: list[int] = _in_order([(p, asking.num_tokens) for p, asking in parts])
        self.is_truncated: list[bool] = _in_order(
            [(places, asking.is_truncated) for places, asking in parts]
        )

    @property
    def sha256(self) -> str | None:
        """See `Asking`."""
        told = [asking.sha256 for _, asking in self._parts]
        places = [list(places) for places, _ in self._parts]
        return None if None in told else sha256_json([told, places])

    def answer(self) -> Answers:
        """See `Asking`."""
        parts = [(places, asking.answer()) for places, asking in self._parts]
        counts, cuts = (
            None
            if all(getattr(answers, name) is None for _, answers in parts)
            else _in_order([(p, getattr(answers, name) or [0] * len(p)) for p, answers in parts])
            for name in ("num_new_tokens", "num_cut")
        )
        return Answers(_in_order([(p, answers.responses) for p, answers in parts]), counts, cuts)


def _in_order(parts: Sequence[tuple[Sequence[int], Sequence[Any]]]) -> list[Any]:
    """What belongs to each request, in the task's order."""
    found = {n: value for places, values in parts for n, value in zip(places, values, strict=True)}
    return [found[number] for number in sorted(found)]
