"""What every backend must do.

from evomerge.testing.backends import check_backend

def test_my_backend():
    check_backend(backend, candidates.load, recipes, vocab_size=32_000)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from evomerge.recipe import Recipe
from evomerge.score.backend import Backend, Continuation, LogLikelihood, Prompt

TOLERANCE = 1e-4
"""Nats, or a millionth of the value where that is more."""


def check_backend(
    backend: Backend,
    write: Callable[[Recipe], None],
    recipes: Sequence[Recipe],
    vocab_size: int,
    seed: int = 0,
) -> None:
    """Check what a scorer expects of a backend.

    Args:
        backend: Whose tensors are written.
        write: Writes a recipe into them and says so (`Candidates.load`).
        recipes: Two or more that give different models.
        vocab_size: Token ids are drawn below it, from 4 on.
        seed: Of what is asked.

    Raises:
        AssertionError: What does not hold.
    """
    assert len(recipes) > 1, "give two recipes or more"
    requests = _continuations(seed, vocab_size, backend.max_length)
    prompts = _prompts(seed, vocab_size, backend.max_length)
    asked = backend.log_likelihoods(requests)
    written = backend.generations(prompts)
    assert len(asked.num_tokens) == len(requests), "num_tokens has one number for each request"
    assert len(written.num_tokens) == len(prompts), "num_tokens has one number for each prompt"
    longest = sum(len(request.read) for request in requests)
    assert 0 < sum(asked.num_tokens) <= longest, "no token is counted twice, and some are run"
    found = []
    for recipe in recipes:
        write(recipe)
        found.append((asked.answer(), written.answer()))
    assert found[0][0] != found[1][0], "other weights have other log-likelihoods"
    for recipe, (values, texts) in zip(reversed(recipes), reversed(found), strict=True):
        write(recipe)
        assert written.answer() == texts, "texts depend on the weights alone"
        assert asked.answer() == values, "log-likelihoods depend on the weights alone"
        assert all(
            text.num_tokens <= p.max_new_tokens for text, p in zip(texts, prompts, strict=True)
        )
    first, second, third = (
        backend.generations([Prompt(prompts[0].tokens, stops, 6, {"do_sample": False})]).answer()[0]
        for stops in ((), ("\0",), ())
    )
    assert first == second == third, "a stop that does not occur changes nothing"
    values = found[0][0]
    alone = [backend.log_likelihoods([request]).answer()[0] for request in requests]
    for value, other in zip(values, alone, strict=True):
        assert _is_close(value, other), f"alone it is {other}, with others {value}"
    # A token's log-likelihoods over all tokens are those of a distribution.
    context = requests[0].context
    whole = backend.log_likelihoods([Continuation(context, (t,)) for t in range(vocab_size)])
    total = torch.tensor([one.value for one in whole.answer()]).exp().sum()
    assert abs(float(total) - 1.0) < 1e-3, f"the probabilities of all tokens sum to {total}"
    parameters = backend.parameters()
    assert parameters, "a backend names the tensors that it wants written"
    assert all(isinstance(tensor, torch.Tensor) for tensor in parameters.values())


def _is_close(a: LogLikelihood, b: LogLikelihood) -> bool:
    return abs(a.value - b.value) <= max(TOLERANCE, 1e-6 * abs(b.value))


def _continuations(seed: int, vocab_size: int, max_length: int) -> list[Continuation]:
    """Questions of a common beginning, choices of one token and of several, and long texts."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, vocab_size) for _ in range(count))

    shared = tokens(max_length // 3)
    requests = []
    for _ in range(4):
        question = shared + tokens(draw.randint(2, max_length // 6))
        requests += [Continuation(question, tokens(draw.choice((1, 1, 2, 5)))) for _ in range(3)]
    requests.append(Continuation(tokens(1), tokens(max_length)))
    requests.append(requests[0])
    return requests


def _prompts(seed: int, vocab_size: int, max_length: int) -> list[Prompt]:
    draw = random.Random(seed)
    shared = tuple(draw.randrange(4, vocab_size) for _ in range(max_length // 3))
    prompts = []
    for count in (1, 2, 5, 5):
        rest = tuple(draw.randrange(4, vocab_size) for _ in range(count))
        prompts.append(Prompt(shared + rest, (), 6, {"do_sample": False}))
    sampled = {"do_sample": True, "temperature": 1.0}
    prompts += [Prompt(prompts[0].tokens, (), 6, sampled, seed) for seed in (1, 2)]
    return prompts
