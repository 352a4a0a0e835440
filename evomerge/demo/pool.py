"""The demo pool: a base trained from scratch and one fine-tune of it a skill.

The command `python -m evomerge.demo.pool --seed 1 --out DIR` makes the shipped pool. The base
learns the skills at their core lengths; every expert learns one skill at its full lengths, with
a learning rate and a number of steps of its own, and some replay of the base's other text.
"""

from __future__ import annotations

import argparse
import copy
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from evomerge.demo import BASE
from evomerge.demo.documents import held_out_prompts
from evomerge.demo.skills import NUMERAL, REVERSE, SKILLS, SORT, Line, Skill
from evomerge.demo.tokenizer import EOS_ID, MAX_TOKENS, PAD_ID, VOCABULARY, build_tokenizer, encode

IGNORED_LABEL = -100
REPORT_EVERY = 20

LineSource = Callable[[Random], Line]


@dataclass(frozen=True)
class Training:
    """How one model is trained: AdamW, linear warmup, then a cosine to zero.

    Attributes:
        learning_rate: The highest learning rate.
        num_steps: Optimizer steps.
    """

    learning_rate: float
    num_steps: int


@dataclass(frozen=True)
class PoolRecipe:
    """Everything that makes the pool, except its seed.

    Attributes:
        base: Training of the base on all skills at their core lengths, in equal shares.
        experts: Each expert's skill and its training.
        replay: Share of an expert's lines that are core lines of the other skills.
        batch_size: Lines a step.
        num_warmup_steps: Steps of linear warmup.
        betas: AdamW's decay rates.
        max_gradient_norm: The gradient is scaled down to this norm.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward layers.
        num_layers: Transformer layers.
        num_heads: Attention heads.
    """

    base: Training = Training(learning_rate=2e-3, num_steps=400)
    experts: tuple[tuple[Skill, Training], ...] = (
        (SORT, Training(learning_rate=1e-3, num_steps=100)),
        (REVERSE, Training(learning_rate=6e-4, num_steps=220)),
        (NUMERAL, Training(learning_rate=1.5e-3, num_steps=150)),
    )
    replay: float = 0.15
    batch_size: int = 128
    num_warmup_steps: int = 20
    betas: tuple[float, float] = (0.9, 0.98)
    max_gradient_norm: float = 1.0
    hidden_size: int = 128
    intermediate_size: int = 352
    num_layers: int = 6
    num_heads: int = 4


def train_pool(
    seed: int,
    out_dir: Path,
    recipe: PoolRecipe | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> dict[str, Path]:
    """Train the base and its experts, and write one checkpoint folder each in bfloat16.

    Args:
        seed: Seed of the weights and of the training text; the documents do not depend on it.
        out_dir: Receives the folders `base`, `sort`, `reverse` and `numeral`; one that is
            already there is replaced.
        recipe: The training recipe; by default the shipped pool's.
        on_step: Called with the model's name, the steps done and the steps in all.

    Returns:
        The folder of each model.
    """
    recipe = recipe or PoolRecipe()
    model = _new_model(recipe, seed)
    core = [skill.core_line for skill in SKILLS]
    paths = {BASE: out_dir / BASE}
    _train(model, recipe, recipe.base, _mixture(core), f"{seed}:{BASE}", BASE, on_step)
    _save(model, paths[BASE])
    base_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for skill, training in recipe.experts:
        model.load_state_dict(base_state)
        others = [other.core_line for other in SKILLS if other is not skill]
        lines = _replayed(skill.full_line, _mixture(others), recipe.replay)
        _train(model, recipe, training, lines, f"{seed}:{skill.name}", skill.name, on_step)
        paths[skill.name] = out_dir / skill.name
        _save(model, paths[skill.name])
    return paths


def _new_model(recipe: PoolRecipe, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _mixture(sources: Sequence[LineSource]) -> LineSource:
    return lambda rng: rng.choice(sources)(rng)


def _replayed(own: LineSource, others: LineSource, replay: float) -> LineSource:
    return lambda rng: (others if rng.random() < replay else own)(rng)


def _train(
    model: LlamaForCausalLM,
    recipe: PoolRecipe,
    training: Training,
    lines: LineSource,
    text_seed: str,
    name: str,
    on_step: Callable[[str, int, int], None] | None,
) -> None:
    rng = Random(text_seed)
    held_out = held_out_prompts()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, betas=recipe.betas, weight_decay=0.0
    )
    model.train()
    for step in range(training.num_steps):
        warmup = min(1.0, (step + 1) / recipe.num_warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / training.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * warmup * cosine
        batch: list[Line] = []
        while len(batch) < recipe.batch_size:
            line = lines(rng)
            if line.prompt not in held_out:
                batch.append(line)
        token_ids_bt, labels_bt = _tensors(batch)
        logits_btv = model(input_ids=token_ids_bt).logits
        loss = cross_entropy(
            logits_btv[:, :-1].flatten(0, 1),
            labels_bt[:, 1:].flatten(),
            ignore_index=IGNORED_LABEL,
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        if on_step is not None:
            on_step(name, step + 1, training.num_steps)


def _tensors(batch: Sequence[Line]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, right-padded, int64 of shape (lines, tokens).

    Only the answer and its newline are learned: the prompt is random.
    """
    num_tokens = max(len(line.prompt) + len(line.answer) + 1 for line in batch)
    token_ids = torch.full((len(batch), num_tokens), PAD_ID)
    labels = torch.full((len(batch), num_tokens), IGNORED_LABEL)
    for row, line in enumerate(batch):
        ids = torch.tensor(encode(f"{line.prompt}{line.answer}\n"))
        token_ids[row, : len(ids)] = ids
        labels[row, len(line.prompt) : len(ids)] = ids[len(line.prompt) :]
    return token_ids, labels


def _save(model: LlamaForCausalLM, model_dir: Path) -> None:
    """Write the checkpoint beside its final place, then move it there."""
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary_dir = Path(tempfile.mkdtemp(dir=model_dir.parent, prefix=f".{model_dir.name}."))
    try:
        copy.deepcopy(model).bfloat16().save_pretrained(temporary_dir)
        build_tokenizer().save_pretrained(temporary_dir)
        temporary_dir.chmod(0o755)
        for path in temporary_dir.iterdir():
            path.chmod(0o644)
        if model_dir.exists():
            shutil.rmtree(model_dir)
        temporary_dir.rename(model_dir)
    finally:
        shutil.rmtree(temporary_dir, ignore_errors=True)


def _show_step(name: str, num_done: int, num_steps: int) -> None:
    if num_done % REPORT_EVERY == 0 or num_done == num_steps:
        end = "\n" if num_done == num_steps else ""
        sys.stderr.write(f"\r{name}: step {num_done} of {num_steps}{end}")
        sys.stderr.flush()


def main() -> None:
    """Train a pool into a folder, and list its models."""
    parser = argparse.ArgumentParser(prog="python -m evomerge.demo.pool", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="the shipped pool's is 1")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model folders")
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    # At this size a second thread gains little, and takes many times as long on a busy core.
    torch.set_num_threads(1)
    started = time.monotonic()
    on_step = _show_step if sys.stderr.isatty() else None
    paths = train_pool(arguments.seed, arguments.out, on_step=on_step)
    for name, path in paths.items():
        size_bytes = (path / "model.safetensors").stat().st_size
        sys.stdout.write(f"{name:<8} {size_bytes / 2**20:5.2f} MiB  {path}\n")
    sys.stdout.write(f"trained in {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
