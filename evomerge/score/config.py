"""The `score` section: what is measured, on which documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evomerge.objectives import OBJECTIVES, ObjectiveConfig
from evomerge.registry import Choice, Registry, Section
from evomerge.score.protocol import Scorer

Split = Literal["search", "validation", "holdout"]

SPLITS: tuple[Split, ...] = ("search", "validation", "holdout")
"""Search documents steer the optimizer, validation ranks finalists, holdout reports the chosen."""


HFLM = "hflm"
"""lm-eval's own engine."""


class SplitsConfig(Section):
    """How many documents of each task a split has, and how they are drawn.

    Attributes:
        search: Documents a task that steer the optimizer.
        validation: Documents a task that rank finalists.
        holdout: Documents a task that report the chosen.
        seed: Of the draw.
        group_by: A field of the documents; those that agree in it, across all tasks, share a
            split. By default documents of equal content do.
    """

    search: int = Field(gt=0)
    validation: int = Field(gt=0)
    holdout: int = Field(gt=0)
    seed: int = 0
    group_by: str | None = None

    def size(self, split: Split) -> int:
        """Documents of a task in a split."""
        sizes: dict[Split, int] = {
            "search": self.search,
            "validation": self.validation,
            "holdout": self.holdout,
        }
        return sizes[split]


class CacheConfig(Section):
    """A folder of answers that searches share.

    Attributes:
        folder: Relative to the configuration's own.
        size_gib: How large it may become; what nobody read for the longest is deleted first.
    """

    folder: str
    size_gib: float = Field(default=10.0, gt=0.0)


class ScoreConfig(Choice):
    """Scores by lm-eval tasks.

    Attributes:
        kind: The scorer.
        objectives: What to improve.
        splits: On which documents.
        include_path: Folders with task YAML files, relative to the configuration's own.
        allow_code: Names of tasks whose code may run, and folders with such tasks: functions that
            are not lm-eval's own, and the execution of code that models write. By default none.
        num_fewshot: Examples in the prompt; by default the task's own number.
        fewshot_seed: Draws the examples, and what a task samples.
        fewshot_by: "document": examples are drawn for each document from the seed and its number,
            the default; "block": for the documents of a block one after another, as runs of
            earlier releases go on to do.
        apply_chat_template: Wrap prompts in the tokenizer's chat template.
        engine: What runs the model: "own", the default; "hflm", lm-eval's own, as runs of earlier
            releases go on to do; or the name of another package's, with its settings where it
            has some.
        cache: A folder where answers are kept across runs and resumes; by default none.
        batch_tokens: Tokens of a batch, padding included; by default fitted to the device.
        block_documents: Documents of a block, the least piece of work that is handed out. Batches
            are cut within a block, so that sharing a candidate among workers changes no score. A
            task with a metric that is no mean over documents (F1, BLEU, perplexity) is one block.
    """

    kind: Literal["lm_eval"] = "lm_eval"
    objectives: tuple[Annotated[ObjectiveConfig, OBJECTIVES], ...]
    splits: SplitsConfig
    include_path: tuple[str, ...] = ()
    allow_code: tuple[str, ...] = ()
    num_fewshot: int | None = Field(default=None, ge=0)
    fewshot_seed: int = 1234
    fewshot_by: Literal["document", "block"] | None = None
    apply_chat_template: bool = False
    engine: str | dict[str, Any] | None = None
    cache: CacheConfig | None = None
    batch_tokens: int | None = Field(default=None, gt=0)
    block_documents: int = Field(default=256, gt=0)

    @property
    def is_by_hflm(self) -> bool:
        """Whether lm-eval's own model answers; it does in runs of releases that had no other."""
        return self.engine in (None, HFLM, {"kind": HFLM})

    @field_validator("objectives", mode="before")
    @classmethod
    def _some_objective(cls, value: Any) -> Any:
        # A length in the field would also be told of where an entry is wrong.
        if isinstance(value, list | tuple) and not value:
            raise ValueError("a search has at least 1 item to improve, not 0")
        return value

    @model_validator(mode="after")
    def _some_preference(self) -> Self:
        steering = [objective for objective in self.objectives if not objective.monitor]
        if not steering:
            raise ValueError("every objective is a monitor, and nothing steers the search")
        if not any(objective.preference for objective in steering):
            raise ValueError("every objective has preference 0; give at least one a positive one")
        if not any(objective.metrics for objective in steering):
            raise ValueError("no objective is measured on documents; add a metric of a task")
        return self


SCORERS: Registry[Scorer] = Registry("scorer", "evomerge.scorers", default="lm_eval")

ScoreSection = Annotated[ScoreConfig, SCORERS]
