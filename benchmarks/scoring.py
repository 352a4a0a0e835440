"""What scoring costs: our engine against lm-eval's own model (HFLM), on the same requests.

Three models: the demo pool's base, stories260k (where it lies in ../shared/models), and a random
Llama of 30 M parameters with a vocabulary of 32,000. Six tasks each: four choices zero-shot, with
five shots that are the same for all (`first_n`) and with five that are drawn for each document
(lm-eval's default sampler), four one-token choices, whole texts (rolling), and short generations
behind five shots. Questions have 20 to 60 tokens, choices 4 to 12, shots 30 or more.

Both engines answer one block after both have built their requests; the seconds are the least of
several answers, which alternate. HFLM is as the engine `hflm` runs it: requests and tokens are made
once, batches fill 2,048 tokens, and logits are float32.

- tokens: that the model runs, padding included; heads: places where its head is run.
- speedup: HFLM's seconds over ours; the `fewshot4_speedup` and its like are the least over models.
- max_loglik_excess: greatest difference of two log-likelihoods over max(1e-4, 1e-6 |value|).
- choices_equal: whether both choose alike wherever the two best choices differ by more than that.
- later_candidate_outside_model_share: of the time of scoring another candidate with our engine,
  what is spent neither in the model's forward passes nor on the softmax of their logits; all tasks
  together, on the 30 M model. The table has it by task.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import torch

from evomerge.backends import HuggingFaceBackend
from evomerge.backends.fit import find_batching
from evomerge.backends.log_likelihoods import PreparedLogLikelihoods
from evomerge.score import Block, LmEvalScorer, Row, ScoreConfig, TaskSet
from evomerge.workers.worker import quiet_libraries
from harness import describe_machine, parse_arguments, print_table, write_figures
from scoring_subjects import (
    STORIES_DIR,
    TASKS,
    Subject,
    demo_subject,
    random_subject,
    stories_subject,
    write_tasks,
)

NUM_DOCUMENTS = {"quick": 8, "bar": 48, "full": 160}
NUM_ROUNDS = {"quick": 1, "bar": 3, "full": 5}
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Measured:
    """What one engine did.

    Attributes:
        seconds: The least of several answers.
        tokens: That the model ran, padding included.
        heads: Places where the head was run.
        outside: Share of the time outside of the model.
        rows: A row for each document.
    """

    seconds: float
    tokens: int
    heads: int
    outside: float
    rows: list[Row]


class Clock:
    """Seconds spent in some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def counting(self, owner: Any, name: str) -> Iterator[None]:
        """Count the calls of a function inside of the block."""
        whole = getattr(owner, name)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return whole(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - started

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, whole)


class Engine:
    """One engine on one task of one model."""

    def __init__(
        self, kind: str, subject: Subject, folder: Path, task: str, documents: int
    ) -> None:
        config = ScoreConfig.model_validate(
            {
                "objectives": [{"task": task}],
                "splits": {"search": documents - 2, "validation": 1, "holdout": 1},
                "include_path": [str(folder)],
                "engine": kind,
                "fewshot_by": "document",
            }
        )
        tasks = TaskSet(config, folder)
        batching = find_batching(subject.model.config, 4, BATCH_TOKENS, is_on_gpu=False)
        backend = HuggingFaceBackend(subject.model, subject.tokenizer, batching)
        splits = {task: {"search": tuple(range(documents)), "validation": (), "holdout": ()}}
        self.scorer = LmEvalScorer(config, tasks, splits, backend, subject.tokenizer, BATCH_TOKENS)
        self.block = Block(task, tuple(range(documents)))
        self.model = subject.model
        self.seconds: list[float] = []
        self.outside: list[float] = []
        self.rows = self.scorer.score([self.block])
        self.tokens, self.heads = self._count()

    def run(self) -> None:
        """Answer once more, and time it."""
        clock = Clock()
        started = time.perf_counter()
        with (
            clock.counting(self.model, "forward"),
            clock.counting(PreparedLogLikelihoods, "_read"),
        ):
            self.scorer.score([self.block])
        seconds = time.perf_counter() - started
        self.seconds.append(seconds)
        self.outside.append(1.0 - clock.seconds / seconds)

    def _count(self) -> tuple[int, int]:
        """Tokens and head places of an answer, padding included."""
        tokens = heads = 0

        def count(_module: Any, _arguments: Any, keywords: dict[str, Any], _output: Any) -> None:
            nonlocal tokens
            tokens += keywords["input_ids"].numel()

        def count_head(_module: Any, inputs: tuple[Any, ...]) -> None:
            nonlocal heads
            heads += inputs[0].shape[:-1].numel()

        hooks = [
            self.model.register_forward_hook(
                lambda module, arguments, keywords, output: count(
                    module,
                    arguments,
                    {"input_ids": arguments[0]} if arguments else keywords,
                    output,
                ),
                with_kwargs=True,
            ),
            # After what our engine hooks there, so that places are those that are run.
            self.model.get_output_embeddings().register_forward_hook(
                lambda module, inputs, output: count_head(module, (output,))
            ),
        ]
        try:
            self.scorer.score([self.block])
        finally:
            for hook in hooks:
                hook.remove()
        return tokens, heads

    @property
    def measured(self) -> Measured:
        """What it did."""
        best = min(range(len(self.seconds)), key=self.seconds.__getitem__)
        outside = statistics.median(self.outside)
        return Measured(self.seconds[best], self.tokens, self.heads, outside, self.rows)


def compare(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[float, bool, float]:
    """Greatest excess of a log-likelihood, whether choices are equal, share of equal texts."""
    excess = 0.0
    equal = True
    same = 0
    for a, b in zip(ours, theirs, strict=True):
        same += a.text == b.text
        for x, y in zip(a.log_likelihoods, b.log_likelihoods, strict=True):
            excess = max(excess, abs(x - y) / max(1e-4, 1e-6 * abs(y)))
        if len(b.log_likelihoods) > 1:
            ranked = sorted(b.log_likelihoods)
            is_close = ranked[-1] - ranked[-2] <= max(1e-4, 1e-6 * abs(ranked[-1]))
            if not is_close and _best(a) != _best(b):
                equal = False
    return excess, equal, same / len(ours)


def _best(row: Row) -> int:
    """The choice that is taken."""
    return row.log_likelihoods.index(max(row.log_likelihoods))


def main() -> None:
    """Measure every task of every model with both engines."""
    size, json_path = parse_arguments(__doc__ or "")
    quiet_libraries()
    torch.set_num_threads(1 if size == "quick" else os.cpu_count() or 1)
    subjects = [demo_subject(), random_subject()]
    if STORIES_DIR.is_dir():
        subjects.insert(1, stories_subject())
    else:
        print(f"without stories260k: {STORIES_DIR} is not there")
    speedups: dict[str, dict[str, float]] = {task: {} for task in TASKS}
    table, excesses, equals, texts = [], [], [], []
    outside: dict[tuple[str, str], float] = {}
    seconds: dict[tuple[str, str], float] = {}
    for subject in subjects:
        for task in TASKS:
            with tempfile.TemporaryDirectory() as name:
                write_tasks(Path(name), subject, NUM_DOCUMENTS[size])
                engines = {
                    kind: Engine(kind, subject, Path(name), task, NUM_DOCUMENTS[size])
                    for kind in ("hflm", "own")
                }
                for _ in range(NUM_ROUNDS[size]):
                    for engine in engines.values():
                        engine.run()
            theirs, ours = engines["hflm"].measured, engines["own"].measured
            excess, equal, same = compare(ours.rows, theirs.rows)
            excesses.append(excess)
            texts.append(same)
            equals.append(equal)
            speedups[task][subject.name] = theirs.seconds / ours.seconds
            outside[subject.name, task] = ours.outside
            seconds[subject.name, task] = ours.seconds
            table.append(
                [
                    f"{subject.name}, {task}",
                    f"{theirs.seconds:.3f}",
                    f"{ours.seconds:.3f}",
                    f"{theirs.seconds / ours.seconds:.1f}",
                    f"{theirs.tokens:,}",
                    f"{ours.tokens:,}",
                    f"{theirs.heads:,}",
                    f"{ours.heads:,}",
                    f"{excess:.3f}" if task != "generation" else f"{same:.0%} equal",
                    f"{ours.outside:.1%}",
                ]
            )
            print(" | ".join(table[-1]), flush=True)
    print_table(
        "Scoring a candidate: HFLM and ours",
        [
            "",
            "HFLM s",
            "s",
            "times",
            "HFLM tokens",
            "tokens",
            "HFLM heads",
            "heads",
            "excess",
            "outside",
        ],
        table,
    )
    large = subjects[-1].name
    figures: dict[str, Any] = {
        "machine": describe_machine(),
        **{f"{task}_speedup": round(min(speedups[task].values()), 2) for task in TASKS},
        "fewshot4_speedup_30m": round(speedups["fewshot4"][large], 2),
        "generation_speedup_30m": round(speedups["generation"][large], 2),
        "later_candidate_outside_model_share": round(
            sum(outside[large, task] * seconds[large, task] for task in TASKS)
            / sum(seconds[large, task] for task in TASKS),
            4,
        ),
        "max_loglik_excess": round(max(excesses), 3),
        "choices_equal": all(equals),
        "texts_equal": min(texts) == 1.0,
    }
    write_figures(figures, json_path)


if __name__ == "__main__":
    main()
