"""A merge method of another package: the mean task vector, as long as the experts' are."""

from typing import Literal

from evomerge.methods import Method, MethodConfig, Needs, Parameter
from evomerge.methods.terms import vector_sum


class RestoredMeanConfig(MethodConfig):
    """theta = theta_0 + scale * sqrt(N) * mean_i tau_i.

    N task vectors that are orthogonal and of one length have a mean shorter by sqrt(N).
    """

    kind: Literal["restored_mean"] = "restored_mean"


class RestoredMean(Method):
    """The base plus the mean of the task vectors, multiplied."""

    parameters = (Parameter("scale", 1.0, None, None, "shared"),)
    needs = Needs(base=True)

    def terms(self, whole, statistics, coefficients):
        """See `Method`."""
        (scale,) = coefficients["scale"]
        count = len(whole.models)
        return vector_sum(whole.base, whole.models, (count**-0.5,) * count, scale)


def register(methods):
    """Called with the registry of methods."""
    methods.add(RestoredMeanConfig, RestoredMean)
