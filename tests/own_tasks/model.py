"""Small models that are right here and wrong there."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from own_tasks.table import OWN_TASKS

END = "<end>"
CHOSEN = " no yes No Yes True False Neither A B C D"
"""Answers that are one token each: else those of fewer tokens are always likelier."""

NUM_STEPS = 300
NUM_TOKENS = 96
BATCH = 8


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Of bytes and what is frequent in the tasks' data: no text is lost."""
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = ["".join(lesson) for task in OWN_TASKS.values() for lesson in task.lessons()]
    tokenizer.train_from_iterator([*texts, *[CHOSEN] * 10], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, eos_token=END)


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Knows nothing; what it finds likely follows from all of the text before."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model.eval()


def make_taught_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Learns the tasks' lessons, one behind another in random order."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(make_model(tokenizer).config)
    rng = random.Random(0)
    pairs = [lesson for task in OWN_TASKS.values() for lesson in task.lessons()]
    lessons = [(tokenizer.encode(asked), tokenizer.encode(answer + END)) for asked, answer in pairs]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=NUM_STEPS)
    for _ in range(NUM_STEPS):
        tokens: list[int] = []
        labels: list[int] = []
        while len(tokens) < BATCH * NUM_TOKENS:
            asked, answer = rng.choice(lessons)
            tokens += asked + answer
            # What is asked is not learned.
            labels += [-100] * len(asked) + answer
        shape = (BATCH, NUM_TOKENS)
        batch, wanted = (
            torch.tensor(t[: BATCH * NUM_TOKENS]).view(shape) for t in (tokens, labels)
        )
        loss = model(batch, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()
