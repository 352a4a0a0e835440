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
    """Every candidate is scored on all search documents.

    Attributes:
        kind: The fidelity.
    """

    kind: Literal["full"] = "full"


class SampledConfig(Section):
    """Candidates are scored on a sample; what others did foretells the rest.

    Attributes:
        kind: The fidelity.
        documents: Of each candidate, over all tasks; in a race of its first round. "automatic": as
            many as its comparison needs, by the standard errors; in a race a twentieth of all.
        calibrate: Share of the candidates that are scored on all documents as well, on purpose, so
            that the standard errors are checked while the search runs.
        propose: Score, as the first candidate of each generation, the point that is foretold to be
            the best within the optimizer's distribution; of CMA-ES. A run of a release before this
            setting does without.
    """

    kind: str
    documents: Literal["automatic"] | Annotated[int, Field(ge=LEAST_DOCUMENTS)] = "automatic"
    calibrate: float = Field(default=0.05, ge=0.0, le=1.0)
    propose: bool | None = None


class AssistedConfig(SampledConfig):
    """All candidates that are compared have as many documents.

    Attributes:
        kind: The fidelity.
    """

    kind: Literal["assisted"] = "assisted"


class RaceConfig(SampledConfig):
    """Rounds of documents are added for those candidates whose place is not decided.

    Attributes:
        kind: The fidelity.
        limit: A candidate is out once its chance to belong to the better half (of a generation), to
            be the best (of an optimizer without generations) or to be on the front is below this;
            one whose chance is above 1 less this needs no more documents either.
    """

    kind: Literal["race"] = "race"
    limit: float = Field(default=0.05, gt=0.0, lt=0.5)


FidelityConfig = Annotated[FullConfig | AssistedConfig | RaceConfig, Field(discriminator="kind")]
