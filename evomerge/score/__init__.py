"""Scoring: lm-eval tasks, splits of their documents, and statistics of scores."""

from evomerge.score.answers import Answers
from evomerge.score.config import SCORERS, SPLITS, ScoreConfig, ScoreSection, Split
from evomerge.score.lm_eval_scorer import LmEvalScorer
from evomerge.score.objective import Objective
from evomerge.score.protocol import Block, Row, Scorer, cut_blocks
from evomerge.score.rows import (
    Moments,
    ScoredBlocks,
    estimates_of,
    merge_moments,
    moments_of,
    score_blocks,
    to_table,
)
from evomerge.score.splits import Splits, digest
from evomerge.score.statistics import (
    Approximation,
    Difference,
    Estimate,
    Share,
    combine,
    combine_shares,
    mean,
    paired_difference,
)
from evomerge.score.tasks import TaskSet

SCORERS.add(ScoreConfig, LmEvalScorer)
__all__ = [
    "SCORERS",
    "SPLITS",
    "Answers",
    "Approximation",
    "Block",
    "Difference",
    "Estimate",
    "LmEvalScorer",
    "Moments",
    "Objective",
    "Row",
    "ScoreConfig",
    "ScoreSection",
    "ScoredBlocks",
    "Scorer",
    "Share",
    "Split",
    "Splits",
    "TaskSet",
    "combine",
    "combine_shares",
    "cut_blocks",
    "digest",
    "estimates_of",
    "mean",
    "merge_moments",
    "moments_of",
    "paired_difference",
    "score_blocks",
    "to_table",
]
