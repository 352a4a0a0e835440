"""Few documents for each candidate: what is foretold of the others, and how sure a score is then.

Survey sampling's difference estimator (Särndal, Swensson and Wretman, "Model Assisted Survey
Sampling", 1992, ch. 6): a predictor foretells every document's outcome, some documents are scored,
and what the predictor missed on these corrects it. The estimate is unbiased whatever the predictor
is worth; a good one makes it precise.
"""

from evomerge.fidelity.choice import choose
from evomerge.fidelity.estimate import DocumentEstimate, difference_estimate
from evomerge.fidelity.outcomes import Outcomes
from evomerge.fidelity.predictors import PREDICTORS, Fitted, Predictor
from evomerge.fidelity.sample import draw, inclusion_probabilities, spread_of

__all__ = [
    "PREDICTORS",
    "DocumentEstimate",
    "Fitted",
    "Outcomes",
    "Predictor",
    "choose",
    "difference_estimate",
    "draw",
    "inclusion_probabilities",
    "spread_of",
]
