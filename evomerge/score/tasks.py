"""The lm-eval tasks of a search: what is measured of them, and their documents."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_json
from evomerge.objectives import ANSWER_TOKENS
from evomerge.reading import whole_path
from evomerge.score.code import AllowedCode, plain
from evomerge.score.config import SPLITS, ScoreConfig, Split, SplitsConfig
from evomerge.score.duplicates import text_of
from evomerge.score.faults import told_as
from evomerge.score.load import load
from evomerge.score.measures import Measuring, is_mean
from evomerge.score.places import Places
from evomerge.score.protocol import Block, cut_blocks
from evomerge.score.randomness import lm_evals_seeds
from evomerge.score.splits import (
    LEAST_OF_A_TASK,
    Groups,
    Sizes,
    Splits,
    draw_splits,
    group_documents,
    with_sizes,
)

_OF_PLACES = frozenset(("metadata", "dataset_path", "dataset_kwargs", "tag", "group", "task_alias"))
"""Settings of a task that change no prompt and no score, or say where its documents lie."""

SHARE_OF_SHARED = 0.9
"""Of documents that tasks have in common, so much is drawn where nobody says how many."""


def _folders(names: Sequence[str], config_dir: Path, setting: str) -> list[Path]:
    """Folders that a configuration names.

    Raises:
        InputError: One is not there.
    """
    paths = [whole_path(name, config_dir, setting) for name in names]
    for name, path in zip(names, paths, strict=True):
        if not path.is_dir():
            raise InputError(f"{setting}: no folder {name!r} (looked for {path})")
    return paths


class TaskSet:
    """The tasks of a search, loaded.

    Args:
        config: Names, metrics and folders.
        config_dir: What relative folders are relative to.
        may_read_all: Whether tasks may read outside of the configuration's folders: those of a run
            that has begun.

    Raises:
        InputError: A task, metric, filter or folder is not there.
    """

    def __init__(
        self, config: ScoreConfig, config_dir: Path, *, may_read_all: bool = False
    ) -> None:
        self.config = config
        folders = _folders(config.include_path, config_dir, "score.include_path")
        of_data = _folders(config.data_path, config_dir, "score.data_path")
        places = Places(None if may_read_all else [*folders, *of_data])
        wanted = [metric for entry in config.objectives for metric in entry.metrics]
        names = list(dict.fromkeys(metric.task for metric in wanted))
        allowed = AllowedCode(config.allow_code, config_dir, names)
        self._loaded = {name: load(name, folders, allowed, places) for name in names}
        self.tasks: dict[str, Any] = {}
        for loaded in self._loaded.values():
            for name, task in loaded.tasks.items():
                known = self.tasks.setdefault(name, task)
                if known is not task and _settings(known) != _settings(task):
                    raise InputError(
                        f"score.objectives: task {name!r} is named twice, and a group changes its "
                        "settings; a search measures a task in one way: leave one of them out"
                    )
        for task in self.tasks.values():
            # As in lm-eval, a task that says it takes none gets none; earlier releases gave some.
            takes_none = task.config.num_fewshot == 0 and config.fewshot_by is not None
            if config.num_fewshot is not None and not takes_none:
                task.set_config(key="num_fewshot", value=config.num_fewshot)
            if config.gen_prefix is not None:
                task.set_config(key="gen_prefix", value=config.gen_prefix)
                task.fewshot_cfg.gen_prefix = config.gen_prefix
        measuring = Measuring(config.objectives, self._loaded, self.tasks)
        self.measures, self.kinds = measuring.measures, measuring.kinds
        self.objectives = measuring.objectives
        used = {measure.task for measure in self.measures}
        self.tasks = {name: task for name, task in self.tasks.items() if name in used}

    @cached_property
    def documents(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Every task's documents.

        Raises:
            InputError: A task's data or code raises something.
        """
        documents: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, task in self.tasks.items():
            with told_as(InputError, f"task {name!r}: its documents cannot be read"):
                documents[name] = list(task.eval_docs)
        return documents

    def fit_splits(self) -> SplitsConfig:
        """Draw as many documents as the tasks have, from now on, where nobody has said how many.

        Returns:
            The splits, with all their sizes.
        """
        shown = self.groups.shown
        drawn_from = (each for n, each in enumerate(self.groups.members) if n not in shown)
        parts = [{task for task, _ in members} for members in drawn_from]
        usable = Counter(task for part in parts for task in part)
        separate = self._separate_examples()
        for name, task in self.tasks.items():
            num_examples = task.config.num_fewshot or 0
            if num_examples and name not in separate:
                usable[name] -= num_examples + 1
        counts = []
        for loaded in self._loaded.values():
            sizes = {task: len(self.documents[task]) for task in loaded.tasks if task in self.tasks}
            if not loaded.is_group:
                counts += [usable[task] for task in sizes]
                continue
            # See `_shared_out`: the least of each task, a share of what is left, and rounding.
            least, total = LEAST_OF_A_TASK * len(SPLITS), sum(sizes.values())
            counts += [
                least * len(sizes) + (usable[task] - least - len(SPLITS)) * total // max(size, 1)
                for task, size in sizes.items()
            ]
        # A document that stands in several tasks is used in one split of all of them.
        is_shared = any(len(part) > 1 for part in parts)
        count = int(SHARE_OF_SHARED * min(counts)) if is_shared else min(counts)
        splits = with_sizes(self.config.splits, count)
        self.config = self.config.model_copy(update={"splits": splits})
        return splits

    def draw_splits(self) -> Splits:
        """The documents of each split; examples shown in prompts come from none of them."""
        return draw_splits(
            self.documents, self.config.splits, sizes=self._sizes(), groups=self.groups
        )

    @cached_property
    def groups(self) -> Groups:
        """Which documents share a split."""
        examples = self._separate_examples()
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), lm_evals_seeds():
            warnings.simplefilter("ignore")
            return group_documents(self.documents, self.config.splits, examples, self._said)

    def _said(self, name: str, document: Mapping[str, Any]) -> str:
        """What a model is asked and may answer; all of the document where the task fails at it."""
        task = self.tasks[name]
        try:
            with told_as(CandidateError, name):
                parts = [task.doc_to_text(document)]
                if task.config.doc_to_choice is not None:
                    parts += task.doc_to_choice(document)
                else:
                    parts.append(task.doc_to_target(document))
        except CandidateError:
            return text_of(document)
        texts = [part for part in parts if isinstance(part, str | list)]
        return " ".join(str(text) for text in texts) or text_of(document)

    def _sizes(self) -> Sizes:
        """How many documents of each task a split has: what steers nothing is not searched on."""
        sizes: dict[str, dict[Split, int]] = {name: dict.fromkeys(SPLITS, 0) for name in self.tasks}
        for entry in self.config.objectives:
            for metric in entry.metrics:
                for split in SPLITS:
                    if split == "search" and entry.monitor:
                        continue
                    for name, size in self._shared_out(metric.task, split).items():
                        sizes[name][split] = max(sizes[name][split], size)
        return sizes

    def _shared_out(self, name: str, split: Split) -> dict[str, int]:
        """A split's documents of a task, or of a group's tasks in proportion to what they have.

        Raises:
            InputError: A group has more tasks than that.
        """
        size, loaded = self.config.splits.size(split), self._loaded[name]
        if not loaded.is_group:
            return {name: size}
        counts = {task: len(self.documents[task]) for task in loaded.tasks if task in self.tasks}
        least = LEAST_OF_A_TASK * len(counts)
        if size < least:
            raise InputError(
                f"score.splits.{split}: {size} documents are too few for the {len(counts)} tasks "
                f"of the group {name!r}; valid: {least} or more, {LEAST_OF_A_TASK} of each, by "
                "which standard errors are known"
            )
        # Largest remainders, over what everybody has.
        spare, total = size - least, sum(counts.values())
        exact = {task: spare * count / total for task, count in counts.items()}
        shares = {task: LEAST_OF_A_TASK + int(share) for task, share in exact.items()}
        rest = sorted(exact, key=lambda task: (int(exact[task]) - exact[task], task))
        for task in rest[: size - sum(shares.values())]:
            shares[task] += 1
        return shares

    def reserve_examples(self, splits: Splits) -> None:
        """Let tasks that draw examples from their own documents draw what is in no split.

        Raises:
            InputError: Too few documents are left over.
        """
        separate = self._separate_examples()
        drawing = [
            name
            for name, task in self.tasks.items()
            if (task.config.num_fewshot or 0) and name not in separate
        ]
        if not drawing:
            return
        group_of = self.groups.number_of()
        used = {
            group_of[other, index]
            for other, by_split in splits.items()
            for indices in by_split.values()
            for index in indices
        }
        for name in drawing:
            task = self.tasks[name]
            num_examples = task.config.num_fewshot or 0
            documents = self.documents[name]
            free = [d for i, d in enumerate(documents) if group_of[name, i] not in used]
            # One more than needed: lm-eval sets one aside in case it is the document itself.
            if len(free) <= num_examples:
                raise InputError(
                    f"task {name!r} draws {num_examples} examples from its own documents, and the "
                    f"splits leave {len(free)} over\n{self.groups.remedy(name)}"
                )
            with told_as(InputError, f"task {name!r}: its examples cannot be replaced"):
                task.sampler.replace_df(free)

    def settings_sha256(self) -> dict[str, str]:
        """Of what each task says and computes, by task; where its files lie is left out."""
        return {name: sha256_json(_settings(task)) for name, task in self.tasks.items()}

    def joint_metrics(self, name: str) -> dict[str, Callable[[list[Any]], float]]:
        """A task's measures that are no mean over documents, as functions of all of them.

        Args:
            name: The task.

        Returns:
            By metric: a function of what the task gives that metric for each document.
        """
        aggregations: dict[str, Any] = self.tasks[name].aggregation()
        return {
            m.metric: aggregations[m.metric]
            for m in self.measures
            if m.task == name and m.metric != ANSWER_TOKENS and not is_mean(aggregations[m.metric])
        }

    def cut_blocks(self, name: str, documents: Sequence[int]) -> list[Block]:
        """Cut a split's documents of a task; where a metric needs all of them, into one block."""
        if not documents:
            return []
        whole = bool(self.joint_metrics(name))
        return cut_blocks(name, documents, len(documents) if whole else self.config.block_documents)

    def typical_tokens(
        self, name: str, document_ids: Sequence[int], count: Callable[[str], int]
    ) -> float:
        """Tokens of one document's requests, judged by the first of some documents.

        Args:
            name: The task.
            document_ids: Documents that are scored: one of the others may have no prompt.
            count: Tokens of a text.
        """
        task = self.tasks[name]
        sizes = []
        for document in (self.documents[name][index] for index in document_ids[:20]):
            prompt = str(task.doc_to_text(document))
            answers = [str(task.doc_to_target(document))]
            if task.OUTPUT_TYPE == "multiple_choice":
                answers = [str(choice) for choice in task.doc_to_choice(document)]
            shown = 1 + (task.config.num_fewshot or 0)
            sizes.append(sum(shown * count(prompt) + count(answer) for answer in answers))
        return sum(sizes) / len(sizes)

    def _separate_examples(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Examples of the tasks that have documents of their own for them."""
        examples: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, task in self.tasks.items():
            if not (task.config.num_fewshot or 0):
                continue
            what = f"task {name!r}: its examples cannot be read"
            with told_as(InputError, what), lm_evals_seeds():
                has_own = (
                    _had_separate_examples(task)
                    if self.config.fewshot_by is None
                    else _has_separate_examples(task)
                )
                if has_own:
                    examples[name] = [d for d in task.fewshot_docs() if isinstance(d, Mapping)]
        return examples


def _settings(task: Any) -> Any:
    fields = vars(task.config) if hasattr(task, "config") else {}
    return plain({key: value for key, value in fields.items() if key not in _OF_PLACES})


def _has_separate_examples(task: Any) -> bool:
    """Whether lm-eval takes a task's examples from elsewhere than the documents it scores."""
    config, source = task.config, task.fewshot_cfg.split
    scored = config.test_split if task.has_test_docs() else config.validation_split
    if source is None and task.fewshot_cfg.samples is not None:
        return True
    if source is None and task.has_training_docs():
        # A task that is a class may name no split.
        return config.training_split is None or config.training_split != scored
    if source is None:
        source = config.validation_split if task.has_validation_docs() else config.test_split
    return bool(source != scored)


def _had_separate_examples(task: Any) -> bool:
    """The same for runs of earlier releases, which took no examples of the training split."""
    source = getattr(task.fewshot_cfg, "split", None)
    scored = task.config.test_split or task.config.validation_split
    return task.fewshot_cfg.samples is not None or (source is not None and source != scored)
