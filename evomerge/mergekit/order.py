"""Documents of a file that name each other, in the order in which they are built."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Protocol, TypeVar

from evomerge.errors import InputError


class Named(Protocol):
    """What may be named by others."""

    @property
    def name(self) -> str | None:
        """By which others name it."""

    @property
    def named(self) -> tuple[str, ...]:
        """What it may name others by."""


Document = TypeVar("Document", bound=Named)


def in_order(documents: Sequence[Document], path: Path) -> list[Document]:
    """Each behind those that it names; the result, which alone may have no name, comes last.

    Args:
        documents: At least one, as they stand in the file.
        path: The file, for messages.

    Raises:
        InputError: Two have one name, several have none, or they name each other in a circle.
    """
    names = [document.name for document in documents if document.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: two documents have the name {name!r}")
    num_unnamed = len(documents) - len(names)
    if num_unnamed > 1:
        raise InputError(
            f"{path}: {num_unnamed} documents have no `name`, by which others could name them; "
            "the result alone needs none"
        )
    result = next((each for each in documents if each.name is None), documents[-1])
    by_name = {document.name: document for document in documents}
    sorter: TopologicalSorter[str | None] = TopologicalSorter()
    for document in documents:
        sorter.add(document.name, *(name for name in document.named if name in by_name))
    try:
        order = [by_name[name] for name in sorter.static_order()]
    except CycleError as error:
        circle = ", ".join(map(str, error.args[1]))
        raise InputError(f"{path}: documents name each other: {circle}") from None
    return [*(document for document in order if document is not result), result]
