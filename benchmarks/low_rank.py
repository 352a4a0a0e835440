"""What a LoRA adapter of a merge loses, by rank.

demo: task arithmetic of the demo pool's experts at 0.7. The score is the mean accuracy on the
validation documents of the three skills, of the merge and of base and adapter together.

30 M: a random Llama of 30 M numbers and two experts. Each model was trained for some steps to
continue chains of tokens: the base chains of two kinds, each expert more of one kind. The merge is
their task arithmetic at 0.7. The score is the mean log-likelihood of the next token, in nats, on
chains of both kinds that nobody has seen.

- lost: norm of what the adapter lacks over the norm of the difference to the base.
- size: the adapter's file over the model's.
- peft: largest difference of two logits, of base and adapter in PEFT and of the model that evomerge
  builds from base and adapter, over the largest logit.
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.demo import CONFIG_PATH
from evomerge.models import export_checkpoint
from evomerge.pool import ModelConfig, Pool, PoolConfig, open_models, open_pool
from evomerge.promote.forms import write_low_rank
from evomerge.search.alone import score_model
from evomerge.space import recipes
from harness import describe_machine, parse_arguments, print_table, write_figures
from scoring_subjects import llama_of_30m

RANKS = {"quick": (4, 64), "bar": (1, 4, 16, 64, 192), "full": (1, 2, 4, 8, 16, 32, 64, 128, 192)}
SCALE = 0.7

VOCABULARY, LENGTH, BATCH = 32_000, 128, 8
NUM_NEXT = 4
"""Tokens that may follow one."""

Score = Callable[[Path], float]


def main() -> None:
    """Measure both pools."""
    size, path = parse_arguments(__doc__ or "")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        demo = open_pool(
            PoolConfig(
                base=ModelConfig(source="pool/base"),
                experts=tuple(
                    ModelConfig(source=f"pool/{name}") for name in ("sort", "reverse", "numeral")
                ),
            ),
            CONFIG_PATH.parent,
        )
        figures["demo"] = by_rank(Path(folder) / "demo", demo, RANKS[size], _accuracy)
        if size != "quick":
            trained, score = trained_pool(Path(folder) / "trained")
            figures["30 M"] = by_rank(Path(folder) / "30m", trained, RANKS[size], score)
    for name, found in figures.items():
        rows = []
        for rank, row in found.items():
            peft = f"{row['peft']:.1e}" if "peft" in row else ""
            cells = [f"{row['lost']:.3f}", f"{row['size']:.3f}", f"{row['score']:.4f}"]
            rows.append([rank, *cells, peft])
        print_table(name, ["rank", "lost", "size", "score", "peft"], rows)
    write_figures(figures | {"machine": describe_machine()}, path)


def by_rank(folder: Path, pool: Pool, ranks: tuple[int, ...], score: Score) -> dict[str, Any]:
    """Losses of adapters of a pool's merge, by rank; base and merge themselves come first."""
    folder.mkdir()
    merge_dir = folder / "merge"
    export_checkpoint(pool, recipes.task_arithmetic(pool, SCALE), merge_dir, "")
    whole_bytes = _bytes(merge_dir)
    base = score(Path(pool.base.source))
    found: dict[str, Any] = {
        "base": {"lost": 1.0, "size": 0.0, "score": base},
        "merge": {"lost": 0.0, "size": 1.0, "score": score(merge_dir)},
    }
    for rank in ranks:
        adapter_dir, built_dir = folder / f"lora-{rank}", folder / f"built-{rank}"
        reconstruction = write_low_rank(merge_dir, adapter_dir, rank, lambda _done, _of: None)
        adapter = ModelConfig(source=str(adapter_dir), name="adapter")
        opened = open_models(ModelConfig(source=pool.base.source), (adapter,), pool.dtype, Path())
        export_checkpoint(opened, recipes.member(opened, "adapter"), built_dir, "")
        found[str(rank)] = {
            "lost": reconstruction.error,
            "size": _bytes(adapter_dir) / whole_bytes,
            "score": score(built_dir),
            "peft": _against_peft(Path(pool.base.source), adapter_dir, built_dir),
        }
        print(f"rank {rank}: {found[str(rank)]}", flush=True)
    return found


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _accuracy(model_dir: Path) -> float:
    scores = score_model(str(model_dir), CONFIG_PATH, "validation")
    return statistics.fmean(entry["value"] for entry in scores.values())


def _against_peft(base_dir: Path, adapter_dir: Path, built_dir: Path) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(base, adapter_dir).eval()
        built = AutoModelForCausalLM.from_pretrained(built_dir, dtype=torch.float32).eval()
    tokens = torch.arange(3, 35)[None]
    with torch.no_grad():
        expected = built(tokens).logits
        difference = (adapted(tokens).logits - expected).abs().max()
    return float(difference / expected.abs().max())


def trained_pool(folder: Path, num_steps: int = 20) -> tuple[Pool, Score]:
    """A base of 30 M numbers and two experts; and a score of its models."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama_of_30m())
    follows = [torch.randint(3, VOCABULARY, (VOCABULARY, NUM_NEXT)) for _ in range(2)]
    _train(model, [_chains(each, seed) for seed, each in enumerate(follows * num_steps)])
    model.save_pretrained(folder / "base")
    for number, each in enumerate(follows):
        expert = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        _train(expert, [_chains(each, 1000 + step) for step in range(num_steps)])
        expert.save_pretrained(folder / f"expert{number}")
    pool = open_pool(
        PoolConfig(
            base=ModelConfig(source="base"),
            experts=(ModelConfig(source="expert0"), ModelConfig(source="expert1")),
        ),
        folder,
    )
    unseen = [_chains(each, 10**6 + number) for number, each in enumerate(follows)]

    def score(model_dir: Path) -> float:
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
        with torch.no_grad():
            return -statistics.fmean(float(model(each, labels=each).loss) for each in unseen)

    return pool, score


def _chains(follows: torch.Tensor, seed: int) -> torch.Tensor:
    """Token ids, shape [BATCH, LENGTH], each one of those that may follow the one before."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 3 + VOCABULARY // 64, (BATCH, LENGTH), generator=generator)
    choices = torch.randint(NUM_NEXT, (BATCH, LENGTH), generator=generator)
    for place in range(1, LENGTH):
        tokens[:, place] = follows[tokens[:, place - 1], choices[:, place]] % (VOCABULARY // 64) + 3
    return tokens


def _train(model: Any, batches: list[torch.Tensor]) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in batches:
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


if __name__ == "__main__":
    main()
