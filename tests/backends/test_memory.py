"""Memory is counted before a batch is run, and where it does not suffice a batch is halved once."""

from __future__ import annotations

import random
from itertools import count

import pytest
import torch
from transformers import LlamaConfig

from backends.conftest import GREEDY, ask, asker, close, pairs, random_model, word
from evomerge.backends import HuggingFaceBackend
from evomerge.backends.config import Batching
from evomerge.backends.fit import CACHE_SHARE, find_batching
from evomerge.backends.passes import Runner
from evomerge.backends.sizes import TokenSize
from evomerge.errors import CandidateError
from evomerge.score.backend import Continuation
from families import family_config
from fixtures import make_tokenizer


def test_what_attention_copies_counts():
    """Of a layer, where heads share keys: the cache's own, and one for every head."""
    shared = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=1,
        pad_token_id=0,
    )
    size = TokenSize.of(shared)
    assert (size.layer, size.copies) == (2 * 4, 2 * 64)
    assert size.cached(2) == 2 * 8 + 128
    asked = [Continuation((3,) * 600 + (4, n), (5, 6)) for n in range(6, 60)]
    memory_bytes = 1 << 20
    batching = find_batching(shared, 4, 4096, is_on_gpu=True, memory_bytes=memory_bytes)
    backend = HuggingFaceBackend(random_model(shared), make_tokenizer(), batching)
    made = backend.log_likelihoods(asked)
    assert max(map(len, made._batches)) > 1
    for branch, batches in zip(made.branches, made._batches, strict=True):
        most = max(
            (len(batch.ids) * (branch.num_seen + batch.ids.shape[1]) for batch in batches),
            default=0,
        )
        copied = most * (size.layer + size.copies) + branch.num_seen * 2 * size.layer
        assert copied * 4 <= CACHE_SHARE * memory_bytes


class Short:
    """Memory that suffices for some passes alone."""

    def __init__(self, monkeypatch, fails) -> None:
        self.calls = count()
        self.rows: list[int] = []
        whole = Runner.logits

        def logits(runner, inputs, cache=None):
            number = next(self.calls)
            self.rows.append(len(inputs.ids))
            if fails(number, len(inputs.ids)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return whole(runner, inputs, cache)

        monkeypatch.setattr(Runner, "logits", logits)


def test_memory_that_does_not_suffice_halves_a_batch_once(monkeypatch):
    model = random_model(family_config("Llama"))
    made = asker(model, tokens=4000)
    asked = [(word(random.Random(n), 30, 30), word(random.Random(n), 3, 3)) for n in range(40)]
    expected = ask(made, "loglikelihood", asked)
    short = Short(monkeypatch, lambda number, rows: number == 0)
    answers = ask(made, "loglikelihood", asked)
    assert short.rows[0] == sum(short.rows[1:3])
    for (value, is_greedy), (other, was_greedy) in zip(answers, expected, strict=True):
        assert close(value, other)
        assert is_greedy == was_greedy
    texts = [(text, GREEDY) for text, _ in asked]
    whole = ask(made, "generate_until", texts)
    Short(monkeypatch, lambda number, rows: number == 0)
    assert ask(made, "generate_until", texts) == whole
    Short(monkeypatch, lambda number, rows: True)
    with pytest.raises(CandidateError, match="half a batch.*score.batch_tokens"):
        ask(made, "loglikelihood", asked)


def test_limits_are_kept_by_a_lone_row_as_far_as_it_can():
    model = random_model(family_config("Llama"))
    expected = ask(asker(model), "loglikelihood", pairs())
    tiny = Batching(way="trees", tokens=1, cached=1, reads=1).model_dump()
    for (value, _), (other, _) in zip(
        ask(asker(model, **tiny), "loglikelihood", pairs()), expected, strict=True
    ):
        assert close(value, other)
