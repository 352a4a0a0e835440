"""Which way of running a model is exact: tried on a small model of the same kind."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import torch

from evomerge.backends.config import Batching
from evomerge.backends.generations import PreparedGenerations
from evomerge.backends.log_likelihoods import PreparedLogLikelihoods
from evomerge.backends.passes import WAYS, Runner, Way
from evomerge.backends.settings import Settings
from evomerge.score.backend import Continuation, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NUM_NEW = 6
"""Tokens that the small model writes."""

TOLERANCE = 1e-4
"""Nats: how far log-likelihoods may lie apart in float32, as HFLM's do between batch sizes."""

_SMALL: dict[str, int] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_attention_heads": 4,
    "head_dim": 8,
    "rotary_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "max_position_embeddings": 512,
}
"""Sizes of the small model."""

_WINDOW = 24
"""Of the small model, shorter than its sequences, so that windows show."""

_LENGTH = re.compile(r"window(?!.*layers)|chunk_size")
"""Names of sizes that say how far a layer sees."""

_MOST_PARAMETERS = 30_000_000
"""Of a model whose sizes cannot be made small."""


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
    for way in WAYS:
        if way == "trees_in_window" and Runner(model, way).window is None:
            continue
        limits = Batching(way=way, tokens=512, cached=8192, reads=4096)
        # A model that does not take these masks or caches says so in many ways.
        with suppress(Exception):
            asked = PreparedLogLikelihoods(Runner(model, way), requests, limits, 48, 16)
            if all(
                abs(answer.value - value) <= TOLERANCE and answer.is_greedy == is_greedy
                for answer, (value, is_greedy) in zip(asked.answer(), expected, strict=True)
            ) and (not way.startswith("trees") or _writes_alike(model, way, limits, requests)):
                return way
    return "plain_whole"


def small_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel | None:
    """A model of the same class and kinds of layers, random and small, in float32 on the CPU."""
    from transformers import AutoModelForCausalLM

    for changes in (_SMALL | _few_heads(config), {"vocab_size": 96}):
        # Sizes that do not go together fail in many ways.
        with suppress(Exception), torch.random.fork_rng([]):
            small = _with(config, changes)
            torch.manual_seed(seed)
            with torch.device("meta"):
                empty = AutoModelForCausalLM.from_config(small, trust_remote_code=False)
            if empty.num_parameters() > _MOST_PARAMETERS:
                continue
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                small, dtype=torch.float32, trust_remote_code=False
            )
            for parameter in model.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
            model.requires_grad_(False).eval()
            with torch.inference_mode():
                model(input_ids=torch.tensor([[5, 6, 7]]))
            return model
    return None


def _few_heads(config: PreTrainedConfig) -> dict[str, int]:
    """Key and value heads in the model's proportion to its heads: all, one, or some."""
    text: Any = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", None)
    keys = getattr(text, "num_key_value_heads", None)
    if not heads or not keys:
        return {}
    return {"num_key_value_heads": 4 if keys == heads else 1 if keys == 1 else 2}


def _with(config: PreTrainedConfig, changes: Mapping[str, int]) -> PreTrainedConfig:
    """A configuration with few layers, one of each kind at least, and with other sizes."""
    small = type(config).from_dict(config.to_dict())
    text: Any = small.get_text_config(decoder=True)
    lengths = [
        name
        for name, value in text.to_dict().items()
        if _LENGTH.search(name) and isinstance(value, int) and value > _WINDOW
    ]
    for name, value in (*changes.items(), *((name, _WINDOW) for name in lengths)):
        # Some are no settings but properties, or differ from layer to layer.
        with suppress(Exception):
            if getattr(text, name, None) is not None:
                setattr(text, name, value)
    types = getattr(text, "layer_types", None)
    if types:
        # Two in a row of each, in the order in which they come: neighbours differ too.
        kinds = [kind for kind in dict.fromkeys(types) for _ in range(2)]
        with suppress(Exception):
            text.layer_types = kinds
            text.num_hidden_layers = len(kinds)
    else:
        text.num_hidden_layers = min(4, text.num_hidden_layers)
    # Where frequencies depend on the length, sequences are short enough not to notice.
    rope = getattr(text, "rope_parameters", None) or {}
    for one in [rope, *rope.values()]:
        if isinstance(one, dict) and one.get("rope_type") in ("longrope", "dynamic"):
            kept = ("rope_theta", "partial_rotary_factor")
            given = {name: one[name] for name in kept if name in one}
            one.clear()
            one.update(given, rope_type="default")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text, name, None)
    return small


def _requests(vocabulary: int, seed: int) -> list[Continuation]:
    """Questions behind a shared prompt that is worth a trunk, with choices of several lengths."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, vocabulary) for _ in range(count))

    shots = tokens(_WINDOW + 8)
    requests = []
    for _ in range(6):
        question = shots + tokens(draw.randint(6, 20))
        requests += [Continuation(question, tokens(draw.choice((1, 1, 3, 6)))) for _ in range(3)]
    return requests


def _writes_alike(
    model: PreTrainedModel, way: Way, limits: Batching, requests: list[Continuation]
) -> bool:
    """Whether greedy texts behind shared prompts are those of the whole model."""
    settings = Settings(model, {"do_sample": False})
    # Contexts of several lengths, and one that another begins with.
    contexts = list(dict.fromkeys(request.context for request in requests))
    contexts.append(contexts[0][:-2])
    prompts = [Prompt(context, (), NUM_NEW) for context in contexts]
    numbers = cast(Any, _Numbers())
    made = PreparedGenerations(Runner(model, way), numbers, settings, prompts, limits, 16)
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
