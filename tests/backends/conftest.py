"""Small random models of each family, and what lm-eval's own model makes of requests."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, PreTrainedConfig

from evomerge.backends import HuggingFaceBackend
from evomerge.backends.config import Batching
from evomerge.backends.fit import find_batching
from evomerge.backends.passes import Way
from evomerge.score.token_answers import TokenAsker
from families import FAMILIES, family_config
from fixtures import make_tokenizer

LETTERS = "abcdefgh"

DEVICE = torch.device(os.environ.get("EVOMERGE_TEST_DEVICE", "cpu"))
"""Where the models lie: `EVOMERGE_TEST_DEVICE=cuda` runs these tests on a GPU."""


def random_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32, seed: int = 0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.to(DEVICE, dtype).requires_grad_(False).eval()


def word(draw: random.Random, low: int, high: int) -> str:
    return "".join(draw.choice(LETTERS) for _ in range(draw.randint(low, high)))


def pairs(shots: int = 16, seed: int = 1) -> list[tuple[str, str]]:
    """Contexts and continuations: choices of one letter and of several, some alike."""
    draw = random.Random(seed)
    beginning = word(draw, shots, shots)
    made = []
    for _ in range(6):
        question = beginning + word(draw, 2, 9)
        made += [(question, word(draw, 1, 1)) for _ in range(2)]
        made += [(question, word(draw, 2, 6)) for _ in range(2)]
    return [*made, made[0], ("", word(draw, 5, 5)), (beginning, "ab")]


class Hflm:
    """lm-eval's own model, as the oracle."""

    def __init__(self, model, batch_size: int = 1) -> None:
        self.lm = HFLM(
            pretrained=model,
            tokenizer=make_tokenizer(),
            batch_size=batch_size,
            softmax_dtype="float32",
        )

    def ask(self, kind: str, arguments: Sequence[tuple]) -> list:
        instances = [Instance(kind, {}, one, n) for n, one in enumerate(arguments)]
        return getattr(self.lm, kind)(instances, disable_tqdm=True)


GREEDY = {"until": ["ab", "c"], "max_gen_toks": 20, "do_sample": False}


_BATCHINGS: dict[tuple, Batching] = {}
"""By configuration and tokens: to find the way takes longer than most tests."""


def asker(model, way: Way | None = None, tokens: int = 256, **limits: int) -> TokenAsker:
    key = type(model.config), model.config.to_json_string(), tokens
    if key not in _BATCHINGS:
        _BATCHINGS[key] = find_batching(model.config, 4, tokens, is_on_gpu=False)
    batching = _BATCHINGS[key]
    if way is not None:
        batching = batching.model_copy(update={"way": way})
    batching = batching.model_copy(update=limits)
    tokenizer = make_tokenizer()
    return TokenAsker(HuggingFaceBackend(model, tokenizer, batching), tokenizer, seed=5)


def ask(made: TokenAsker, kind: str, arguments) -> list:
    instances = [Instance(kind, {}, one, n) for n, one in enumerate(arguments)]
    return [responses[0] for responses in made.prepare(instances).answer().responses]


def close(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= max(1e-4, 1e-6 * abs(theirs))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family):
    # By this seed the models of all families write different texts.
    return random_model(family_config(family), seed=2)
