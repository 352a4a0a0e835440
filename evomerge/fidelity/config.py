"""How many documents a candidate is scored on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from evomerge.registry import Section

LEAST_DOCUMENTS = 8
"""Of a sample: fewer say nothing of its error."""


LEAST_OF_A_TASK = 2
"""Of each task in a sample, which may be more than asked for."""


class FullConfig(Section):
    """Every candidate is scored on all search documents."""

    kind: Literal["full"] = "full"


class AssistedConfig(Section):
    """Candidates are scored on a sample; what others did foretells the rest.

    Attributes:
        kind: The fidelity.
        documents: Of each candidate, over all tasks; "automatic": as many as its comparison needs,
            by the standard errors.
        calibrate: Share of the candidates that are scored on all documents as well, on purpose, so
            that the standard errors are checked while the search runs.
    """

    kind: Literal["assisted"] = "assisted"
    documents: Literal["automatic"] | Annotated[int, Field(ge=LEAST_DOCUMENTS)] = "automatic"
    calibrate: float = Field(default=0.05, ge=0.0, le=1.0)


FidelityConfig = Annotated[FullConfig | AssistedConfig, Field(discriminator="kind")]
