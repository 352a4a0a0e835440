"""The `chat_template` of a mergekit configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from evomerge.errors import InputError
from evomerge.mergekit.templates import TEMPLATES
from evomerge.mergekit.where import Where
from evomerge.pool import Adapter, Checkpoint
from evomerge.pool.vocabulary.chat import read_chat_template

AUTO = "auto"
LEAST_LENGTH = 20
"""mergekit takes what is shorter for a name."""


def read_template(data: Any, where: Where) -> str | None:
    """Jinja, or `AUTO`; None where nothing is said.

    Raises:
        InputError: It is neither, nor the name of a template.
    """
    if data is None or data == "":
        return None
    if isinstance(data, str) and data in TEMPLATES:
        return TEMPLATES[data]
    if isinstance(data, str) and (data == AUTO or is_jinja(data)):
        return data
    raise InputError(
        f"{where}: got {data!r}; valid: {', '.join((AUTO, *TEMPLATES))}, or a template in Jinja "
        f"of {LEAST_LENGTH} characters or more"
    )


def is_jinja(template: str) -> bool:
    """Whether mergekit takes it for a template."""
    return len(template) >= LEAST_LENGTH and "{" in template


def commonest_template(base: Checkpoint, models: Iterable[Checkpoint]) -> str | None:
    """The template that most of the models have; among equals the base's.

    Args:
        base: Its template is the result's where nothing else is said.
        models: Those that have a say; an adapter has that of its model.

    Returns:
        The template; None: the base's own.
    """
    own = _template(base)
    counts = Counter(found for model in models if (found := _template(model)) is not None)
    if not counts or counts[own or ""] == max(counts.values()):
        return None
    return counts.most_common(1)[0][0]


def _template(model: Checkpoint) -> str | None:
    whole = model.base if isinstance(model, Adapter) else model
    template = read_chat_template(whole.name, whole.model_dir)
    # Spaces around it are no difference, as in mergekit.
    return None if template is None else template.strip() or None
