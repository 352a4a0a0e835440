"""What the score section of a configuration means: its defaults, its folders, what nobody heeds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.backends import BATCHED, EngineConfig
from evomerge.errors import InputError
from evomerge.objectives import ANSWER_TOKENS
from evomerge.reading import whole_path
from evomerge.score import SPLITS, Splits, TaskSet
from evomerge.score.config import HFLM
from evomerge.score.leaks import longest_matches
from evomerge.score.splits import LEAST_OF_A_TASK

Leaks = dict[str, dict[int, float]]
"""By task and document: how much of it stands in the training text in one piece, above 0 to 1."""

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_engine(score: Any, engine: EngineConfig) -> None:
    """Refuse settings that the engine does not heed."""
    wanted = [metric for entry in getattr(score, "objectives", ()) for metric in entry.metrics]
    if engine.kind == HFLM and any(metric.metric == ANSWER_TOKENS for metric in wanted):
        raise InputError(
            "score.objectives: the engine hflm counts no tokens of answers; set engine: own"
        )
    if engine.kind == HFLM and getattr(score, "cache", None) is not None:
        raise InputError(
            "score.cache: the engine hflm keeps no answers; leave score.cache out, or begin a run "
            "with engine: own"
        )
    if engine.kind == HFLM and "truncated" in getattr(score, "health", {}):
        raise InputError(
            "score.health.truncated: the engine hflm does not tell which answers were cut; leave "
            "it out, or set engine: own"
        )
    if engine.kind not in BATCHED and getattr(score, "batch_tokens", None) is not None:
        raise InputError(
            f"score.batch_tokens: the engine {engine.kind} cuts its batches itself; leave "
            "score.batch_tokens out, or set engine: own"
        )


def with_splits(score: Any, tasks: TaskSet) -> Any:
    """The section with the size of every split.

    Raises:
        InputError: A split gives no standard error.
    """
    if None in (score.splits.search, score.splits.validation, score.splits.holdout):
        score = score.model_copy(update={"splits": tasks.fit_splits()})
    for split in SPLITS:
        if score.splits.size(split) < LEAST_OF_A_TASK:
            raise InputError(
                f"score.splits.{split}: a mean over {score.splits.size(split)} document has no "
                f"standard error; valid: {LEAST_OF_A_TASK} or more"
            )
    return score


def check_thinking(score: Any, tasks: TaskSet, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse tasks that leave no room to think, and an end of it that nobody would find."""
    for name, task in tasks.tasks.items():
        if score.enable_thinking and task.OUTPUT_TYPE != "generate_until":
            raise InputError(
                f"score.enable_thinking: task {name!r} asks for {task.OUTPUT_TYPE}, which leaves "
                "no room to think; take tasks that generate, or leave enable_thinking out"
            )
    end = score.think_end_token
    if isinstance(end, int) and end >= len(tokenizer):
        raise InputError(
            f"score.think_end_token: the tokenizer has no token {end}; valid: a text, or 0 to "
            f"{len(tokenizer) - 1}"
        )
    if isinstance(end, str) and end in tokenizer.all_special_tokens:
        number = tokenizer.convert_tokens_to_ids(end)
        raise InputError(
            f"score.think_end_token: {end!r} is a special token, which answers are read without; "
            f"give its id: {number}"
        )


def leaks_of(score: Any, tasks: TaskSet, splits: Splits) -> Leaks:
    """Documents of the splits that stand in the training text, with how much of each.

    Raises:
        InputError: A file of it cannot be read.
    """
    # Its paths are whole: the configuration is resolved.
    paths = [Path(name) for name in getattr(score, "training_text", ())]
    if not paths:
        return {}
    places = [
        (task, number)
        for task, by_split in splits.items()
        for number in sorted({n for numbers in by_split.values() for n in numbers})
    ]
    found = longest_matches([tasks.documents[task][number] for task, number in places], paths)
    leaks: Leaks = {}
    for place, share in found.items():
        task, number = places[place]
        leaks.setdefault(task, {})[number] = share
    return leaks


def with_defaults(score: Any) -> Any:
    """What a new run takes where nobody says it; runs of earlier releases have it otherwise."""
    defaults: dict[str, Any] = {"engine": "own", "fewshot_by": "document"}
    if getattr(score, "apply_chat_template", False):
        defaults |= {"fewshot_as_multiturn": True, "chat_date": datetime.now(UTC).date()}
    update = {
        name: value
        for name, value in defaults.items()
        if name in type(score).model_fields and getattr(score, name) is None
    }
    if score.splits.duplicates is None:
        update["splits"] = score.splits.model_copy(update={"duplicates": "near"})
    return score.model_copy(update=update)


def with_whole_paths(score: Any, config_dir: Path) -> Any:
    """The section with its folders absolute."""

    def whole(setting: str, name: str) -> str:
        return str(whole_path(name, config_dir, f"score.{setting}"))

    update: dict[str, Any] = {
        setting: tuple(whole(setting, name) for name in getattr(score, setting))
        for setting in ("include_path", "data_path", "training_text")
        if getattr(score, setting, ())
    }
    allowed = getattr(score, "allow_code", ())
    if allowed:
        # Others are names of tasks.
        tasks = {metric.task for entry in score.objectives for metric in entry.metrics}
        paths = {name: whole("allow_code", name) for name in allowed}
        update["allow_code"] = tuple(
            paths[n] if n not in tasks and Path(paths[n]).is_dir() else n for n in allowed
        )
    cache = getattr(score, "cache", None)
    if cache is not None:
        folder = whole("cache.folder", cache.folder)
        update["cache"] = cache.model_copy(update={"folder": folder})
    return score.model_copy(update=update)
