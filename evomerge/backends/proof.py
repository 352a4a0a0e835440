"""Which way of running a model is exact: tried on a small model of the same kind."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import torch

from evomerge.backends.by_transformers import GenerationsByTransformers
from evomerge.backends.config import Batching
from evomerge.backends.generations import PreparedGenerations
from evomerge.backends.log_likelihoods import PreparedLogLikelihoods
from evomerge.backends.passes import WAYS, Runner, Way
from evomerge.backends.settings import Settings
from evomerge.backends.sizes import most_of
from evomerge.pool.from_transformers import model_of
from evomerge.score.backend import Continuation, Generation, Prepared, Prompt

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
    "vocab_size_per_layer_input": 96,
    "hidden_size_per_layer_input": 8,
}
"""Sizes of the small model."""

_WINDOW = 24
"""Of the small model, shorter than its sequences, so that windows show."""

_LENGTH = re.compile(r"window(?!.*layers)|chunk_size|index_topk")
"""Names of sizes that say how far a layer sees."""

_KINDS = re.compile(r"layer|block|types|sparsity")
"""Names of lists that say which layer is of which kind."""

_ROUND = re.compile(r"period|pattern|every|interval|freq$")
"""Names of numbers that say after how many layers a kind comes again."""

_FEW_LAYERS, _MOST_LAYERS = 4, 12
"""Of the small model, where nothing says which kinds there are, and where a round is longer."""

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


def small_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel | None:
    """A model of the same class and kinds of layers, random and small, in float32 on the CPU."""
    from transformers import GenerationConfig

    for changes in (_SMALL | _few_heads(config), {"vocab_size": 96}):
        # Sizes that do not go together fail in many ways.
        with suppress(Exception), torch.random.fork_rng([]):
            small = _with(config, changes)
            torch.manual_seed(seed)
            with torch.device("meta"):
                empty = model_of(small)
            if empty.num_parameters() > _MOST_PARAMETERS:
                continue
            model = model_of(small, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
            model.requires_grad_(False).eval()
            # What it writes ends by its length.
            model.generation_config = GenerationConfig()
            with torch.inference_mode():
                model(input_ids=torch.tensor([[5, 6, 7]]))
            return model
    return None


def _few_heads(config: PreTrainedConfig) -> dict[str, int]:
    """Key and value heads in the model's proportion to its heads: all, one, or some."""
    text: Any = config.get_text_config(decoder=True)
    heads, keys = (most_of(text, f"num_{kind}_heads", 0) for kind in ("attention", "key_value"))
    if not heads or not keys:
        return {}
    return {"num_key_value_heads": 4 if keys == heads else 1 if keys == 1 else 2}


def _with(config: PreTrainedConfig, changes: Mapping[str, int]) -> PreTrainedConfig:
    """A configuration with few layers, two of each kind at least, and with other sizes."""
    told = config.to_dict()
    for part in (told, *told.values()):
        # Its layers are of one size.
        if isinstance(part, dict):
            part.pop("per_layer_config", None)
    small = type(config).from_dict(told)
    text: Any = small.get_text_config(decoder=True)
    told = text.to_dict()
    lengths = {
        name: value
        for name, value in told.items()
        if _LENGTH.search(name) and type(value) is int and value > 1
    }
    # Windows of one length stay alike, and others differ.
    ranks = sorted(set(lengths.values()), reverse=True)
    windows = {
        name: min(value, max(6, _WINDOW - 6 * ranks.index(value)))
        for name, value in lengths.items()
    }
    layers = _few_layers(told, text.num_hidden_layers, changes)
    for name, value in {**changes, **windows, **layers}.items():
        # Some are no settings but properties, or refuse a size that others do not go with.
        with suppress(Exception):
            if getattr(text, name, None) is not None:
                setattr(text, name, value)
    # Where frequencies depend on the length, sequences are short enough not to notice.
    rope = getattr(text, "rope_parameters", None) or {}
    for one in [rope, *rope.values()]:
        if isinstance(one, dict) and one.get("rope_type") in ("longrope", "dynamic"):
            kept = ("rope_theta", "partial_rotary_factor")
            given = {name: one[name] for name in kept if name in one}
            one.clear()
            one.update(given, rope_type="default")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text, name, 0)
    return small


def _few_layers(
    told: Mapping[str, Any], num_layers: int, changes: Mapping[str, int]
) -> dict[str, Any]:
    """The settings of a model with two layers of each kind, or with its first and last ones.

    Args:
        told: The model's configuration.
        num_layers: How many it has.
        changes: Sizes that the small model has.
    """
    lists = {
        name: list(value)
        for name, value in told.items()
        if isinstance(value, list | tuple)
        and len(value) == num_layers
        and (name in changes or _KINDS.search(name))
    }
    of_kinds = [value for name, value in lists.items() if name not in changes]
    kinds = [tuple(str(value[layer]) for value in of_kinds) for layer in range(num_layers)]
    if len(set(kinds)) > 1:
        # Two in a row of each, in the order in which they come: neighbours differ too.
        picked = [n for kind in dict.fromkeys(kinds) for n in _two_of(kinds, kind)]
    else:
        # Kinds that come again after so many layers are among the first ones.
        rounds = [
            len(value) if isinstance(value, list | tuple) else value
            for name, value in told.items()
            if (isinstance(value, list | tuple) and _KINDS.search(name))
            or (isinstance(value, int) and _ROUND.search(name))
        ]
        most = max((n for n in rounds if n <= _MOST_LAYERS), default=0)
        picked = list(range(min(num_layers, max(_FEW_LAYERS, most))))
    few: dict[str, Any] = {}
    if told.get("num_kv_shared_layers"):
        # Those at the end read what layers of their kind before them wrote.
        few["num_kv_shared_layers"] = len(picked)
        picked = picked * 2
    for name, value in lists.items():
        few[name] = [changes.get(name, value[layer]) for layer in picked]
    return {**few, "num_hidden_layers": len(picked)}


def _two_of(kinds: list[tuple[str, ...]], kind: tuple[str, ...]) -> list[int]:
    """The first layers of a kind, or the only one twice."""
    found = [layer for layer, each in enumerate(kinds) if each == kind]
    return [found[0], found[min(1, len(found) - 1)]]


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
