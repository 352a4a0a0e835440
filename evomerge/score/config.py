"""The `score` section: what is measured, on which documents."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evomerge.objectives import OBJECTIVES, ObjectiveConfig
from evomerge.registry import Choice, Registry, Section
from evomerge.score.health import Sign
from evomerge.score.protocol import Scorer

Split = Literal["search", "validation", "holdout"]

SPLITS: tuple[Split, ...] = ("search", "validation", "holdout")
"""Search documents steer the optimizer, validation ranks finalists, holdout reports the chosen."""


TAKEN_BY_TEMPLATES = frozenset(
    (
        *("add_generation_prompt", "chat_template", "continue_final_message", "conversation"),
        *("enable_thinking", "messages", "tokenize", "tokenizer_kwargs", "return_dict"),
        *("return_tensors", "padding", "truncation", "max_length", "return_assistant_tokens_mask"),
        *("tools", "documents", "self", "strftime_now", "raise_exception"),
    )
)
"""Names that a chat template's own variables cannot have."""


HFLM = "hflm"
"""lm-eval's own engine."""


class SplitsConfig(Section):
    """How many documents of each task a split has, and how they are drawn.

    Attributes:
        search: How many documents of each task steer the optimizer. By default 200, or a fifth of
            the documents of the task that has the fewest. Documents that share a split count as
            one.
        validation: How many documents of each task rank the finalists. By default 200, or a fifth.
        holdout: How many documents of each task say what the chosen model scores; nothing is
            chosen by them. By default 600, or three fifths.
        seed: The seed with which documents are drawn.
        group_by: A field of the documents; those that agree in it, across all tasks, share a
            split. By default documents of equal content do.
        duplicates: "near", the default: documents that say nearly the same, across all tasks,
            share a split as well; "equal", as runs of earlier releases go on to do: they do not.
    """

    search: int | None = Field(default=None, gt=0)
    validation: int | None = Field(default=None, gt=0)
    holdout: int | None = Field(default=None, gt=0)
    seed: int = 0
    group_by: str | None = None
    duplicates: Literal["near", "equal"] | None = None

    def size(self, split: Split) -> int:
        """Documents of a task in a split, once that is known."""
        sizes: dict[Split, int | None] = {
            "search": self.search,
            "validation": self.validation,
            "holdout": self.holdout,
        }
        size = sizes[split]
        assert size is not None
        return size


class CacheConfig(Section):
    """A folder of answers that searches share.

    Attributes:
        folder: Where the answers are kept, relative to the configuration's own folder.
        size_gib: How large it may become; what nobody read for the longest is deleted first.
    """

    folder: str
    size_gib: float = Field(default=10.0, gt=0.0)


class ScoreConfig(Choice):
    """Scores by lm-eval tasks.

    Attributes:
        kind: The scorer.
        objectives: What to improve, at least one objective.
        splits: How many documents of each task are used for what.
        include_path: Folders with task YAML files, relative to the configuration's own.
        data_path: Folders that tasks may read documents in, besides those of `include_path`;
            relative to the configuration's own.
        allow_code: Names of tasks whose code may run, and folders with such tasks: functions that
            are not lm-eval's own, and the execution of code that models write. By default none.
        training_text: Text, JSON or JSON Lines files with what the experts were trained on; the
            report tells of documents that stand in them. Relative to the configuration's own.
        num_fewshot: Examples in the prompt; by default the task's own number. As in lm-eval, a task
            whose own number is 0 keeps it.
        fewshot_seed: The seed with which examples are drawn, and whatever else a task draws.
        fewshot_by: "document": examples are drawn for each document from the seed and its number,
            the default; "block": for the documents of a block one after another, as runs of
            earlier releases go on to do.
        apply_chat_template: Wrap prompts in the chat template of the base's tokenizer; a name
            where it has several.
        system_instruction: A text that stands before everything else in a prompt.
        fewshot_as_multiturn: Show examples as questions and answers of the chat, the default;
            false, as runs of earlier releases go on to do: as parts of one message.
        enable_thinking: The chat template gets this value under this name.
        chat_template_args: Other variables of the chat template.
        chat_date: The day that chat templates take for today; by default that on which the run
            began, so that a resumed run has the same prompts.
        gen_prefix: A text that every answer begins with, in the place of the tasks' own.
        think_end_token: A text, or a token's id; only what an answer has behind it counts.
        engine: What runs the model: "own", the default; "hflm", lm-eval's own, as runs of earlier
            releases go on to do; or the name of another package's, with its settings where it
            has some.
        cache: A folder where answers are kept across runs and resumes; by default none.
        health: Shares of a task's documents, by sign, above which a search does not begin: the
            models of the pool are judged on search documents. By default people are warned.
        batch_tokens: Tokens of a batch, padding included; by default fitted to the device.
        block_documents: Documents of a block, the least piece of work that is handed out. Batches
            are cut within a block, so that sharing a candidate among workers changes no score. A
            task with a metric that is no mean over documents (F1, BLEU, perplexity) is one block.
    """

    kind: Literal["lm_eval"] = "lm_eval"
    objectives: tuple[Annotated[ObjectiveConfig, OBJECTIVES], ...]
    splits: SplitsConfig = SplitsConfig()
    include_path: tuple[str, ...] = ()
    data_path: tuple[str, ...] = ()
    allow_code: tuple[Annotated[str, Field(pattern=r"\S")], ...] = ()
    training_text: tuple[str, ...] = ()
    num_fewshot: int | None = Field(default=None, ge=0)
    fewshot_seed: int = 1234
    fewshot_by: Literal["document", "block"] | None = None
    apply_chat_template: bool | Annotated[str, Field(min_length=1)] = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool | None = None
    enable_thinking: bool | None = None
    chat_template_args: dict[str, Any] = Field(default_factory=dict)
    chat_date: date | None = None
    gen_prefix: str | None = None
    think_end_token: str | int | None = None
    engine: str | dict[str, Any] | None = None
    cache: CacheConfig | None = None
    health: dict[Sign, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default_factory=dict)
    batch_tokens: int | None = Field(default=None, gt=0)
    block_documents: int = Field(default=256, gt=0)

    @property
    def is_by_hflm(self) -> bool:
        """Whether lm-eval's own model answers; it does in runs of releases that had no other."""
        return self.engine in (None, HFLM, {"kind": HFLM})

    @property
    def template_arguments(self) -> dict[str, Any]:
        """Variables of the chat template that it says."""
        if self.enable_thinking is None:
            return self.chat_template_args
        return {**self.chat_template_args, "enable_thinking": self.enable_thinking}

    @field_validator("chat_template_args")
    @classmethod
    def _free_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(TAKEN_BY_TEMPLATES & value.keys())
        if taken:
            raise ValueError(f"{taken[0]!r} is set by evomerge itself; leave it out")
        return value

    @field_validator("think_end_token", mode="before")
    @classmethod
    def _some_token(cls, value: Any) -> Any:
        if value == "" or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise ValueError("expected a text, or a token's id; valid: '</think>', 151668")
        # As in lm-eval: numbers are ids, however they are written.
        return int(value) if isinstance(value, str) and value.isdigit() else value

    @model_validator(mode="after")
    def _chats_only(self) -> Self:
        if not self.apply_chat_template:
            of_chats = ("fewshot_as_multiturn", "enable_thinking", "chat_template_args")
            named = [name for name in of_chats if getattr(self, name) not in (None, {})]
            if named:
                raise ValueError(
                    f"{named[0]} is part of a chat, and prompts are no chats; set "
                    "apply_chat_template: true"
                )
        if self.enable_thinking and self.think_end_token is None:
            raise ValueError(
                "enable_thinking: true, and nothing says where the thinking ends; set "
                "think_end_token, such as '</think>'"
            )
        return self

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
