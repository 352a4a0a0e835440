"""Which way of running a model is exact: tried on a small model of the same kind."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import torch

from evomerge.backends.by_transformers import GenerationsByTransformers
from evomerge.backends.config import Batching
from evomerge.backends.generations import PreparedGenerations
from evomerge.backends.log_likelihoods import PreparedLogLikelihoods
from evomerge.backends.passes import WAYS, Runner, Way
from evomerge.backends.settings import Settings
from evomerge.models.small import WINDOW, small_model
from evomerge.score.backend import Continuation, Generation, Prepared, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NUM_NEW = 6
"""Tokens that the small model writes."""

TOLERANCE = 1e-4
"""Nats: how far log-likelihoods may lie apart in float32, as HFLM's do between batch sizes."""


def exact_way(config: PreTrainedConfig, seed: int = 0) -> Way:
    """The way that runs the fewest tokens and gives what the plain model gives.

    Args:
        config: The model's; read only.
        seed: Of the small model's weights and of what it is asked.

    Returns:
        "plain_whole" where nothing else is exact, or no small model can be made.
    """
    model = small_model(config, seed)
    if model is None:
        return "plain_whole"
    requests = _requests(model.config.get_text_config(decoder=True).vocab_size, seed)
    expected = _one_by_one(model, requests)
    for way in WAYS[:-1]:
        if way == "trees_in_window" and Runner(model, way).window is None:
            continue
        limits = Batching(way=way, tokens=512, cached=8192, reads=4096)
        # A model that does not take these masks or caches says so in many ways.
        with suppress(Exception):
            asked = PreparedLogLikelihoods(Runner(model, way), requests, limits, 48, 16)
            if all(
                abs(answer.value - value) <= TOLERANCE and answer.is_greedy == is_greedy
                for answer, (value, is_greedy) in zip(asked.answer(), expected, strict=True)
            ) and _writes_alike(model, way, limits, requests):
                return way
    return "plain_whole"


def _requests(vocabulary: int, seed: int) -> list[Continuation]:
    """Questions behind a shared prompt that is worth a trunk, with choices of several lengths."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, vocabulary) for _ in range(count))

    shots = tokens(WINDOW + 8)
    requests = []
    for _ in range(6):
        question = shots + tokens(draw.randint(6, 20))
        requests += [Continuation(question, tokens(draw.choice((1, 1, 3, 6)))) for _ in range(3)]
    return requests


def _writes_alike(
    model: PreTrainedModel, way: Way, limits: Batching, requests: list[Continuation]
) -> bool:
    """Whether greedy texts written together are those of the whole model."""
    settings = Settings(model, {"do_sample": False})
    # Contexts of several lengths, two of one length, and one that another begins with.
    contexts = list(dict.fromkeys(request.context for request in requests))
    contexts += [contexts[0][::-1], contexts[0][:-2]]
    prompts = [Prompt(context, (), NUM_NEW) for context in contexts]
    numbers = cast(Any, _Numbers())
    made: Prepared[Generation]
    if way.startswith("trees"):
        made = PreparedGenerations(Runner(model, way), numbers, settings, prompts, limits, 16)
    else:
        made = GenerationsByTransformers(model, numbers, settings, prompts, limits)
    expected = []
    for context in contexts:
        tokens = list(context)
        for _ in range(NUM_NEW):
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
        expected.append(" ".join(map(str, tokens[len(context) :])))
    return [answer.text for answer in made.answer()] == expected


class _Numbers:
    """A tokenizer whose texts are token ids."""

    pad_token_id = 0

    def decode(self, tokens: list[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


def _one_by_one(model: PreTrainedModel, requests: list[Continuation]) -> list[tuple[float, bool]]:
    """What the model gives for each request alone, all of it run."""
    answers = []
    with torch.inference_mode():
        for request in requests:
            logits = model(input_ids=torch.tensor([request.read]), use_cache=False).logits[0]
            logits = logits[-len(request.targets) :].float()
            targets = torch.tensor(request.targets)
            values = logits.log_softmax(-1).gather(1, targets[:, None]).double()
            answers.append((float(values.sum()), bool((logits.argmax(-1) == targets).all())))
    return answers
