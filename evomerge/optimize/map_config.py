"""Settings of MAP and its Bayesian variant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from evomerge.optimize.designs import DesignConfig, DOptimalConfig
from evomerge.optimize.protocol import OptimizerConfig, SurrogateKind

Acquisition = Literal["mean", "ehvi", "thompson"]


class SurrogateSearchConfig(OptimizerConfig):
    """What MAP and its Bayesian variant share.

    Attributes:
        design: What is measured first.
        surrogate: What the losses are taken for: a quadratic of the genome, a Gaussian process, a
            quadratic and a Gaussian process of what that cannot follow, or for each loss the
            first or the last of these, as leave-one-out cross-validation says.
        acquisition: How the next point is chosen from the surrogates' front: "mean", by what it
            adds to the front when it is as the surrogates expect; "ehvi", by what it adds on
            average over functions drawn from the posterior; "thompson", from the front of one
            such function.
        tolerance: Share of the front's hypervolume; once the last points have added less in all,
            and the next one promises less, the search ends.
        max_outstanding: Points asked and not yet told, at most; they count as measured as expected.
    """

    finds_front: ClassVar[bool] = True
    fits_surrogates: ClassVar[bool] = True
    asks_landmarks: ClassVar[bool] = True
    max_modeled: ClassVar[int] = 30

    design: DesignConfig = DOptimalConfig()
    surrogate: SurrogateKind = "automatic"
    acquisition: Acquisition
    tolerance: float = Field(default=1e-4, ge=0.0)
    max_outstanding: int = Field(default=8, ge=1)

    @property
    def modeled_by(self) -> SurrogateKind:
        """See `OptimizerConfig`."""
        return self.surrogate


class MapConfig(SurrogateSearchConfig):
    """MAP with quadratic surrogates."""

    kind: Literal["map"] = "map"
    acquisition: Acquisition = "mean"


class BayesianMapConfig(SurrogateSearchConfig):
    """MAP that weighs what it does not know: expected hypervolume improvement."""

    kind: Literal["bayesian_map"] = "bayesian_map"
    acquisition: Acquisition = "ehvi"
