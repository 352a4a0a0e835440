"""Log-likelihoods are those of lm-eval's own model, for every family and every type of request."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from backends.conftest import DEVICE, GREEDY, Hflm, ask, asker, close, pairs, random_model, word
from evomerge.errors import InputError
from families import family_config


@pytest.mark.parametrize("way", [None, "plain", "plain_whole"])
@pytest.mark.parametrize("shots", [4, 30])
def test_log_likelihoods(way, shots, model):
    asked = pairs(shots)
    expected = Hflm(model).ask("loglikelihood", asked)
    answers = ask(asker(model, way), "loglikelihood", asked)
    for (value, is_greedy), (theirs, was_greedy) in zip(answers, expected, strict=True):
        assert close(value, theirs)
        assert is_greedy == was_greedy
    assert answers[-3] == answers[0]


def test_greedy_continuations_are_found(model):
    """Continuations that the model would write itself, by a tree and whole."""
    draw = random.Random(6)
    prompts = [word(draw, 4, 9) for _ in range(6)]
    settings = {"until": [], "max_gen_toks": 6}
    texts = Hflm(model).ask("generate_until", [(prompt, settings) for prompt in prompts])
    asked = [
        (prompt, text[:n])
        for prompt, text in zip(prompts, texts, strict=True)
        for n in range(1, len(text) + 1)
    ]
    answers = ask(asker(model), "loglikelihood", asked)
    expected = Hflm(model).ask("loglikelihood", asked)
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in expected]
    assert any(greedy for _, greedy in answers)


def test_long_texts_are_read_in_windows(model):
    texts = [(word(random.Random(n), 10, 200),) for n in range(5)]
    expected = Hflm(model).ask("loglikelihood_rolling", texts)
    answers = ask(asker(model), "loglikelihood_rolling", texts)
    assert all(close(a, b) for a, b in zip(answers, expected, strict=True))


def test_what_is_too_long_is_cut_at_the_left(model):
    draw = random.Random(2)
    asked = [(word(draw, 50, 90), word(draw, 1, 9)) for _ in range(8)]
    instances = [Instance("loglikelihood", {}, one, n) for n, one in enumerate(asked)]
    prepared = asker(model).prepare(instances)
    lengths = [len(context) + len(answer) for context, answer in asked]
    assert prepared.is_truncated == [length > 65 for length in lengths]
    assert len(set(prepared.is_truncated)) == 2
    expected = Hflm(model).ask("loglikelihood", asked)
    for responses, (value, _) in zip(prepared.answer().responses, expected, strict=True):
        assert close(responses[0][0], value)


def test_the_same_block_has_the_same_bits_whatever_ran_before(model):
    made = asker(model)
    first = [Instance("loglikelihood", {}, one, n) for n, one in enumerate(pairs(30))]
    other = [Instance("loglikelihood", {}, one, n) for n, one in enumerate(pairs(9, seed=8))]
    one, two = made.prepare(first), made.prepare(other)
    answers = one.answer()
    two.answer()
    assert one.answer() == answers
    assert asker(model).prepare(first).answer() == answers


@pytest.mark.parametrize("family_name", ["Llama", "Gemma3", "GPT-2"])
def test_bfloat16_is_no_further_off_than_lm_evals(family_name):
    config = family_config(family_name)
    exact, rounded = random_model(config), random_model(config, torch.bfloat16)
    # The float32 model has the rounded one's weights.
    exact.load_state_dict({n: t.float() for n, t in rounded.state_dict().items()})
    asked = [one for seed in range(8) for one in pairs(30, seed)]

    def values(answers: list) -> np.ndarray:
        return np.array([value for value, _ in answers])

    truth = values(Hflm(exact).ask("loglikelihood", asked))
    theirs = [values(Hflm(rounded, n).ask("loglikelihood", asked)) for n in (1, 5, 64)]
    spread = max(np.abs(a - b).max() for a in theirs for b in theirs)
    ours = values(ask(asker(rounded), "loglikelihood", asked))
    if DEVICE.type == "cuda" and spread == 0.0:
        pytest.skip("lm-eval's batches of models as small as these differ by nothing on a GPU")
    assert spread > 0.0
    farthest = max(np.abs(other - truth).max() for other in theirs)
    assert np.abs(ours - truth).max() <= farthest + spread
    errors = [np.sqrt(np.mean((other - truth) ** 2)) for other in theirs]
    assert np.sqrt(np.mean((ours - truth) ** 2)) <= 1.05 * max(errors)


def test_an_answer_without_tokens_is_refused():
    made = asker(random_model(family_config("Llama")))
    with pytest.raises(InputError, match="an answer has 0 tokens; valid: 1 to 64"):
        made.prepare([Instance("loglikelihood", {}, ("ab", ""), 0)])
    with pytest.raises(InputError, match="answers have up to 64 tokens, and the model reads 64"):
        made.prepare([Instance("generate_until", {}, ("ab", {"max_gen_toks": 64}), 0)])


def test_a_context_without_tokens_is_that_of_an_empty_one():
    model = random_model(family_config("Llama"))
    made = asker(model)
    # The tokenizer drops nothing, so spaces are taken for tokens that it does not know.
    made._encoder._tokenizer = _NoSpaces(made._encoder._tokenizer)
    empty, spaces = ask(made, "loglikelihood", [("", "abc"), (" \n ", "abc")])
    assert spaces == empty
    with pytest.raises(InputError, match="a prompt has no tokens"):
        made.prepare([Instance("generate_until", {}, (" ", GREEDY), 0)])


class _NoSpaces:
    """A tokenizer that makes nothing of spaces, as those do that split at them."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, **settings) -> list[int]:
        return self._tokenizer.encode("".join(text.split()), **settings)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)
