"""The difference estimator: what is foretold of all documents, corrected by those that are scored.

Source: Särndal, Swensson and Wretman, "Model Assisted Survey Sampling" (1992), section 6.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity.arrays import Floats

PRIOR_DOCUMENTS = 40.0
"""How many sampled documents the foretold variance counts like.

The variance of the sampled residuals alone is least where the estimate errs upward.
"""


@dataclass(frozen=True)
class DocumentEstimate:
    """A mean over documents, some of which are scored.

    Attributes:
        value: Estimate of the mean over all documents.
        design_error: Its standard error against the mean over all documents; 0: all are scored.
        own_error: Standard error of the mean over all documents against that of the task's whole.
        num_scored: Documents that are scored.
        inflation: Variance by the residuals of the documents that were drawn by chance, over that
            which was foretold of them; None: fewer than two were.
    """

    value: float
    design_error: float
    own_error: float
    num_scored: int
    inflation: float | None = None

    @property
    def standard_error(self) -> float:
        """Of all of it."""
        return float(np.hypot(self.design_error, self.own_error))


def difference_estimate(
    predicted: Floats,
    spread: Floats,
    documents: NDArray[np.intp],
    values: Floats,
    probabilities: Floats,
    keys: Floats,
    inflation: float = 1.0,
) -> DocumentEstimate:
    """Estimate a mean.

    Args:
        predicted: Outcomes that were foretold without any of the values, shape [n].
        spread: Predicted standard deviation of each, shape [n].
        documents: Positions of those that are scored, ascending, shape [s].
        values: Their outcomes, shape [s].
        probabilities: With which each document was to be scored, shape [n].
        keys: Along which they were drawn, shape [n].
        inflation: Variance of residuals so far over that which was foretold.

    Returns:
        The estimate. It is unbiased whatever the predictor is worth. The variance of few residuals
        is itself uncertain: it is averaged with the foretold one, which counts like
        `PRIOR_DOCUMENTS` documents.
    """
    size = len(predicted)
    residuals = values - predicted[documents]
    chances = probabilities[documents]
    value = float(predicted.mean() + (residuals / chances).sum() / size)
    by_chance = (1.0 - probabilities) / probabilities
    foretold = inflation * float((by_chance * spread**2).sum()) / size**2
    found = contrasts(residuals / chances, chances, keys[documents])
    sampled = float((found**2).sum()) / size**2
    count = float((chances < 1.0).sum())
    share = PRIOR_DOCUMENTS / (PRIOR_DOCUMENTS + count) if len(found) else 1.0
    variance = share * foretold + (1.0 - share) * sampled
    expected = float((by_chance * spread**2 / probabilities)[documents].sum()) / size**2
    is_whole = len(documents) == size
    outcomes = float(values.var() if is_whole else predicted.var())
    outcomes += 0.0 if is_whole else inflation * float((spread**2).mean())
    return DocumentEstimate(
        value,
        float(np.sqrt(variance)),
        float(np.sqrt(outcomes / size)) if size > 1 else float("nan"),
        len(documents),
        sampled / expected if len(found) else None,
    )


def contrasts(weighted: Floats, probabilities: Floats, keys: Floats) -> Floats:
    """What sums of weighted residuals vary by, as numbers whose squares sum to the variance.

    Documents that are drawn along an order vary as much as neighbors differ: successive differences
    (Wolter, "Introduction to Variance Estimation", 2007, section 8.2, estimator v2), each weighted
    by the mean of 1 less the two probabilities.

    Args:
        weighted: Residuals over the probabilities, of sampled documents, shape [..., s].
        probabilities: With which these were to be scored, shape [s]; 1 adds nothing.
        keys: Along which they were drawn, shape [s].

    Returns:
        Shape [..., c - 1], of c documents that were drawn by chance.
    """
    by_chance = np.flatnonzero(probabilities < 1.0)
    order = by_chance[np.argsort(keys[by_chance], kind="stable")]
    rest = 1.0 - probabilities[order]
    together = (rest[1:] + rest[:-1]) / 4.0 * (len(order) / max(1, len(order) - 1))
    return np.asarray(np.sqrt(together) * np.diff(weighted[..., order], axis=-1))


def covariance_of(residuals: Floats, probabilities: Floats, keys: Floats, errors: Floats) -> Floats:
    """Covariance of estimates of several candidates on one sample, shape [m, m].

    Their errors vary together as far as their residuals do; few documents say little of that, and
    count like `PRIOR_DOCUMENTS` of which nothing varies together.

    Args:
        residuals: Outcomes less what was foretold, of the sampled documents, shape [m, s].
        probabilities: With which these were to be scored, shape [s].
        keys: Along which they were drawn, shape [s].
        errors: Standard errors of the estimates, shape [m].
    """
    weighted = contrasts(residuals / probabilities, probabilities, keys)
    found = weighted @ weighted.T
    scales = np.sqrt(np.maximum(np.diag(found), 1e-300))
    count = weighted.shape[1]
    together = found / np.outer(scales, scales) * count / (count + PRIOR_DOCUMENTS)
    np.fill_diagonal(together, 1.0)
    return np.asarray(together * np.outer(errors, errors))
