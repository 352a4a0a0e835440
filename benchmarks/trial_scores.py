"""Part of the trial: the demo pool scored on the device and on the CPU.

The base, its experts and their average are built and scored by a worker on either side, on the
demo's tasks. The weights must be the same bits. In float32 a log-likelihood may differ by
max(1e-4, 1e-6 of itself): batches and libraries add up in another order. The choice among answers,
or the next token of one that is generated, must be the same unless the two best lie within that on
the CPU. In bfloat16 what differs is reported, beside how far either side is from float32 where the
weights are the same (the pool is stored in bfloat16).

Without a GPU the second side is the CPU as well, with batches of another size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.pool import load_tokenizer
from evomerge.recipe import Recipe
from evomerge.search.setup import Setup, set_up
from evomerge.space import recipes
from evomerge.workers import Job, JobResult
from evomerge.workers.worker import MergeWorker
from harness import print_table
from trial import Figures, Tally, Trial

DOCUMENTS = {"quick": (20, 40), "bar": (40, 100), "full": (200, 600)}
"""Of each task, on the CPU and on a GPU."""

BATCH_TOKENS = 100
"""Where the second side is the CPU as well."""

Rows = dict[tuple[str, int], dict[str, Any]]
"""What a model did, by task and document."""


def tolerance(log_likelihood: float) -> float:
    """How far from it another side's may be in float32."""
    return max(1e-4, 1e-6 * abs(log_likelihood))


@dataclass
class Compared:
    """Both sides' rows of all candidates in a type.

    Attributes:
        cpu: By candidate.
        there: By candidate.
        num_choices: Choices that differ.
        num_texts: Generated texts that differ.
        num_ties: Those of both whose two best are too near to tell.
        seconds: Scoring on the CPU, and there.
    """

    cpu: dict[str, Rows] = field(default_factory=dict)
    there: dict[str, Rows] = field(default_factory=dict)
    num_choices: int = 0
    num_texts: int = 0
    num_ties: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def difference(self) -> float:
        """The largest of two log-likelihoods of the same."""
        return max(farthest(rows, self.there[name]) for name, rows in self.cpu.items())


def run(trial: Trial, figures: Figures) -> None:
    """Score on both sides and compare.

    Raises:
        RuntimeError: They differ by more than they may.
    """
    # Evomerge sets neither: on a GPU these are torch's defaults.
    figures["allow_tf32"] = torch.backends.cuda.matmul.allow_tf32
    figures["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    is_exact = not figures["allow_tf32"] and figures["float32_matmul_precision"] == "highest"
    tally = Tally()
    tally.compare("matrix products", lambda: "" if is_exact else "float32 is rounded to tf32")
    found: dict[str, Compared] = {}
    try:
        for dtype in ("float32", "bfloat16"):
            found[dtype] = Compared()
            score(trial, dtype, found[dtype], tally)
    finally:
        figures |= tally.figures
        for dtype, compared in found.items():
            if compared.there:
                figures |= {
                    f"{dtype}_largest_difference": compared.difference,
                    f"{dtype}_choices_differ": compared.num_choices,
                    f"{dtype}_texts_differ": compared.num_texts,
                    f"{dtype}_ties": compared.num_ties,
                    f"{dtype}_cpu_seconds": compared.seconds[0],
                    f"{dtype}_seconds": compared.seconds[1],
                }
        print_rows(found, figures)
    parents = [name for name in found["float32"].cpu if name != "uniform"]
    exact = found["float32"].cpu
    for side in ("cpu", "there"):
        rows = getattr(found["bfloat16"], side)
        figures[f"bfloat16_{side}_from_float32"] = max(
            farthest(exact[name], rows[name]) for name in parents
        )
    tally.require()


def score(trial: Trial, dtype: str, compared: Compared, tally: Tally) -> None:
    """Score the candidates in a type on both sides."""
    documents = trial.amount(DOCUMENTS)
    splits = {"search": 2, "validation": documents, "holdout": 2}
    overrides = [f"score.splits.{name}={size}" for name, size in splits.items()]
    config = load_config(CONFIG_PATH, [*overrides, f"pool.dtype={dtype}", "workers.kind=inline"])
    setup = set_up(config, CONFIG_PATH.parent)
    spec = setup.worker_spec()
    here = MergeWorker(spec, torch.device("cpu"))
    if not trial.on_gpu:
        assert spec.batching is not None
        batching = spec.batching.model_copy(update={"tokens": BATCH_TOKENS})
        spec = replace(spec, batch_tokens=BATCH_TOKENS, batching=batching)
    there = MergeWorker(spec, trial.device)
    for name, recipe in candidates(setup):
        job = job_of(setup, name, recipe)
        first, second = here.evaluate(job), there.evaluate(job)
        compared.cpu[name], compared.there[name] = rows_of(first), rows_of(second)
        compared.seconds = (
            compared.seconds[0] + first.score_s,
            compared.seconds[1] + second.score_s,
        )
        tally.compare(
            f"{name}, {dtype}, weights",
            lambda first=first, second=second: (
                "" if first.weights_sha256 == second.weights_sha256 else "other bits"
            ),
        )
        for key, row in compared.cpu[name].items():
            line = compare_rows(setup, here, row, compared.there[name][key], compared)
            if dtype == "float32":
                tally.compare(f"{name}, {dtype}, {key}", lambda line=line: line)


def candidates(setup: Setup) -> Iterator[tuple[str, Recipe]]:
    """The models of the pool, and the experts' average."""
    for model in setup.pool:
        yield model.name, recipes.member(setup.pool, model.name)
    yield "uniform", recipes.uniform(setup.pool)


def job_of(setup: Setup, name: str, recipe: Recipe) -> Job:
    """All of a candidate's validation documents."""
    blocks = tuple(enumerate(setup.blocks("validation")))
    return Job(name, recipe.to_json(), "validation", blocks, len(blocks))


def rows_of(result: JobResult) -> Rows:
    """A job's table by document."""
    return {(row["task"], row["document"]): row for row in result.table.to_pylist()}


def farthest(first: Rows, second: Rows) -> float:
    """The largest difference of two log-likelihoods of the same."""
    differences = (
        abs(ours - theirs)
        for key, row in first.items()
        for ours, theirs in zip(row["log_likelihoods"], second[key]["log_likelihoods"], strict=True)
    )
    return max(differences, default=0.0)


def compare_rows(
    setup: Setup,
    worker: MergeWorker,
    row: dict[str, Any],
    other: dict[str, Any],
    compared: Compared,
) -> str:
    """What differs of two sides' answers to a document, beyond what may; and count it."""
    ours, theirs = row["log_likelihoods"], other["log_likelihoods"]
    if ours:
        if choice(ours) != choice(theirs):
            compared.num_choices += 1
            best, second = sorted(ours, reverse=True)[:2]
            if best - second > tolerance(best):
                return f"choice {choice(ours)} and {choice(theirs)}: {ours} and {theirs}"
            compared.num_ties += 1
        apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        if any(d > tolerance(a) for d, a in zip(apart, ours, strict=True)):
            return f"log-likelihoods differ by {max(apart):.2g}"
        return ""
    if row["text"] == other["text"]:
        return ""
    compared.num_texts += 1
    prompt = str(
        setup.tasks.tasks[row["task"]].doc_to_text(
            setup.tasks.documents[row["task"]][row["document"]]
        )
    )
    apart = margin(setup, worker, prompt, row["text"], other["text"])
    if apart > tolerance(0.0):
        return f"texts {row['text']!r} and {other['text']!r}, {apart:.2g} apart"
    compared.num_ties += 1
    return ""


def choice(log_likelihoods: list[float]) -> int:
    """The most likely answer."""
    return log_likelihoods.index(max(log_likelihoods))


@torch.no_grad()
def margin(setup: Setup, worker: MergeWorker, prompt: str, first: str, second: str) -> float:
    """How far apart the worker's model finds the tokens in which two answers part, in nats."""
    tokenizer = load_tokenizer(setup.pool)
    # What ends an answer is a newline.
    ids = [tokenizer.encode(f"{prompt}{text}\n") for text in (first, second)]
    place = next(i for i, pair in enumerate(zip(*ids, strict=False)) if len(set(pair)) > 1)
    logits = worker.backend.model(torch.tensor([ids[0][:place]])).logits[0, -1]
    likely = logits.float().log_softmax(dim=-1)
    return abs(float(likely[ids[0][place]] - likely[ids[1][place]]))


def print_rows(found: dict[str, Compared], figures: Figures) -> None:
    """A line for each type."""
    table = [
        [
            dtype,
            str(sum(map(len, compared.cpu.values()))),
            f"{figures[f'{dtype}_largest_difference']:.1e}",
            f"{compared.num_choices} and {compared.num_texts}",
            str(compared.num_ties),
            f"{compared.seconds[0]:.1f} and {compared.seconds[1]:.1f}",
        ]
        for dtype, compared in found.items()
        if compared.there
    ]
    headings = [
        "type",
        "documents",
        "largest difference, nats",
        "choices and texts that differ",
        "of them ties",
        "scoring, CPU and there, s",
    ]
    print_table("the demo pool on the CPU and on the device", headings, table)
