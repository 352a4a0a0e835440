"""Answers are those of lm-eval's own model, for every family and every type of request."""

from __future__ import annotations

import random
from itertools import count

import numpy as np
import pytest
import torch
from backends.conftest import DEVICE, Hflm, pairs, random_model, word
from families import FAMILIES, family_config
from fixtures import make_tokenizer
from lm_eval.api.instance import Instance
from transformers import (
    BloomConfig,
    DeepseekV32Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    RecurrentGemmaConfig,
)
from transformers.models.gemma3n import Gemma3nTextConfig
from transformers.models.gemma4 import Gemma4TextConfig

from evomerge.backends import HuggingFaceBackend
from evomerge.backends.config import Batching
from evomerge.backends.fit import CACHE_SHARE, find_batching
from evomerge.backends.passes import WAYS, Runner, Way
from evomerge.backends.proof import exact_way
from evomerge.backends.rotary import forget_lengths
from evomerge.backends.sizes import TokenSize
from evomerge.errors import CandidateError, InputError
from evomerge.score.backend import Continuation
from evomerge.score.token_answers import TokenAsker

BY_TYPE = ("Qwen2", "Qwen3", "Gemma2", "Gemma3")


def asker(model, way: Way | None = None, tokens: int = 256, **limits: int) -> TokenAsker:
    batching = find_batching(model.config, 4, tokens, is_on_gpu=False)
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


def test_the_way_is_found_by_trial(family, model):
    expected = "trees_by_type" if family in BY_TYPE else "trees"
    if family == "Mistral":
        expected = "trees_in_window"
    assert exact_way(model.config) == expected
    assert exact_way(model.config, seed=3) == expected


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


GREEDY = {"until": ["ab", "c"], "max_gen_toks": 20, "do_sample": False}


@pytest.mark.parametrize("way", [None, "plain"])
@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        GREEDY | {"repetition_penalty": 1.3},
        GREEDY | {"encoder_repetition_penalty": 1.4},
        GREEDY | {"until": [], "min_new_tokens": 4},
        GREEDY | {"until": ""},
        GREEDY | {"max_length": 64},
    ],
    ids=["greedy", "penalty", "prompt's", "least", "nothing", "whole"],
)
def test_generations(way, settings, model):
    draw = random.Random(3)
    shots = word(draw, 20, 20)
    prompts = [shots + word(draw, 1, 14) for _ in range(14)]
    # One that others begin with, one twice, one too long.
    prompts += [prompts[0][:-1], prompts[1], word(draw, 70, 70)]
    asked = [(prompt, settings) for prompt in prompts]
    expected = Hflm(model).ask("generate_until", asked)
    for limits in ({}, {"cached": 200}):
        assert ask(asker(model, way, **limits), "generate_until", asked) == expected
    assert len(set(expected)) > (1 if settings["until"] == "" else 3)


def test_beams_are_transformers(model):
    draw = random.Random(3)
    settings = {"max_gen_toks": 9, "do_sample": False, "num_beams": 3}
    # A stop is looked for in as many tokens as it may take, whatever the other takes.
    for until in ([], ["a", "bcdefgh"]):
        asked = [(word(draw, 4, 9), settings | {"until": until}) for _ in range(8)]
        expected = Hflm(model).ask("generate_until", asked)
        assert ask(asker(model), "generate_until", asked) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_gen_toks": 0}, "up to 0 tokens.*valid for max_gen_toks: 1 to 63"),
        ({"until": None}, "generation_kwargs.until: expected texts; got None"),
        ({"do_sample": "false"}, "generation_kwargs.do_sample: expected true or false"),
        ({"temperature": None}, "generation_kwargs.temperature: expected a number; got None"),
        ({"do_sample": True, "temperature": 0.0}, "temperature: 0.0 draws nothing"),
        ({"num_beams": 2, "num_return_sequences": 2}, "num_return_sequences cannot be set"),
        ({"stop_strings": ["a"]}, "stop_strings cannot be set"),
        ({"temprature": 1.0}, "temprature cannot be set"),
        ({"until": ["a", 3]}, "generation_kwargs.until: expected texts; got 3"),
        ({"repetition_penalty": "1.2"}, "repetition_penalty: expected a number; got '1.2'"),
        ({"repetition_penalty": -1.0}, "generation_config.json: .*strictly positive float"),
    ],
)
@pytest.mark.parametrize("way", ["trees", "plain"])
def test_settings_that_mean_nothing_are_refused(way, settings, words):
    made = asker(random_model(family_config("Llama")), way)
    settings = {"max_gen_toks": 4, **settings}
    with pytest.raises(InputError, match=words):
        made.prepare([Instance("generate_until", {}, ("ab", settings), 0)])


@pytest.mark.parametrize("way", WAYS[2:])
def test_nothing_is_drawn_from_what_is_not_finite(way):
    model = random_model(family_config("Llama"))
    settings = {"until": [], "max_gen_toks": 4, "do_sample": True, "temperature": 1.0}
    made = asker(model, way).prepare([Instance("generate_until", {}, ("ab", settings), 0)])
    good = made.answer()
    kept = model.lm_head.weight.clone()
    model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(CandidateError, match="logit is not finite"):
        made.answer()
    model.lm_head.weight.copy_(kept)
    assert made.answer() == good


def test_draws_follow_the_models_probabilities():
    model = random_model(family_config("Llama"))
    settings = {"until": [], "max_gen_toks": 1, "do_sample": True, "temperature": 1.5, "top_k": 4}
    made = asker(model)
    texts = ask(made, "generate_until", [("abcde", settings)])
    (request,) = made.prepare([Instance("generate_until", {}, ("abcde", settings), 0)])._requests
    logits = model(torch.tensor([request.tokens], device=DEVICE)).logits[0, -1]
    likeliest = logits.topk(4).indices.tolist()
    shares = torch.softmax(logits[likeliest] / 1.5, dim=-1).tolist()
    instance = Instance("generate_until", {}, ("abcde", settings), 0)
    instance.repeats = 4000
    (drawn,) = made.prepare([instance]).answer().responses
    tokenizer = make_tokenizer()
    for token, share in zip(likeliest, shares, strict=True):
        text = tokenizer.decode([token], skip_special_tokens=True)
        found = drawn.count(text) / len(drawn)
        assert abs(found - share) < 0.04
    assert set(texts) <= set(drawn)


def test_sampled_answers_depend_on_no_other(model):
    settings = {"until": ["ab"], "max_gen_toks": 12, "do_sample": True, "temperature": 2.0}
    draw = random.Random(4)
    asked = [(word(draw, 4, 20), settings) for _ in range(6)]
    together = ask(asker(model), "generate_until", asked)
    torch.manual_seed(1)
    assert ask(asker(model, cached=80), "generate_until", asked[::-1]) == together[::-1]
    assert len(set(together)) > 3


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


SMALL = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
OTHERS = {
    "state space": (MambaConfig(**SMALL, state_size=4), "plain"),
    "positions in the attention": (BloomConfig(**SMALL, n_head=2, n_layer=2), "plain"),
    "windows nobody is told of": (
        GPTNeoConfig(
            **SMALL,
            num_heads=2,
            num_layers=2,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            max_position_embeddings=64,
        ),
        "plain",
    ),
    "such windows at the end": (
        GPTNeoConfig(
            **SMALL | {"num_hidden_layers": 12},
            num_heads=2,
            attention_types=[[["global"], 6], [["local"], 6]],
            window_size=4,
            max_position_embeddings=64,
        ),
        "plain",
    ),
    "state spaces at the end": (
        RecurrentGemmaConfig(
            **SMALL | {"num_hidden_layers": 8},
            intermediate_size=48,
            num_attention_heads=2,
            num_key_value_heads=1,
            lru_width=16,
            attention_window_size=100,
            block_types=["attention"] * 4 + ["recurrent"] * 4,
        ),
        "plain",
    ),
    "layers that see what follows": (
        Gemma3TextConfig(
            **SMALL,
            intermediate_size=24,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            use_bidirectional_attention=True,
        ),
        "plain_whole",
    ),
    "layers that choose among what follows": (
        DeepseekV32Config(
            **SMALL,
            intermediate_size=24,
            moe_intermediate_size=8,
            first_k_dense_replace=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=4,
            index_n_heads=2,
            index_head_dim=8,
            index_topk=26,
        ),
        "plain_whole",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_shares_nothing_is_run_whole(name):
    config, way = OTHERS[name]
    assert exact_way(config) == way
    model = random_model(config)
    made = asker(model)
    expected = Hflm(model).ask("loglikelihood", pairs())
    answers = ask(made, "loglikelihood", pairs())
    assert all(close(a, b) for (a, _), (b, _) in zip(answers, expected, strict=True))
    asked = [(text, GREEDY) for text, _ in pairs() if text]
    assert ask(made, "generate_until", asked) == Hflm(model).ask("generate_until", asked)


LENGTHS = {
    "Phi-3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
        "original_max_position_embeddings": 40,
    },
    "Llama": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
}


@pytest.mark.parametrize("name", LENGTHS)
def test_rotary_frequencies_that_depend_on_the_length(name):
    config = family_config(name, **LENGTHS[name])
    assert exact_way(config) == "trees"
    model = random_model(config)
    if name == "Llama":
        # Its frequencies change behind the last position, which no request gets to by itself.
        model.config.max_position_embeddings = 40
        rotary = model.model.rotary_emb
        rotary.original_max_seq_len = rotary.max_seq_len_cached = 40
    made = asker(model)
    made._encoder.max_length = 64
    for shots in (30, 45, 20):
        asked = pairs(shots)
        oracle = Hflm(model)
        oracle.lm._max_length = 64
        expected = []
        for one in asked:
            forget_lengths(model)
            expected += oracle.ask("loglikelihood", [one])
        answers = ask(made, "loglikelihood", asked)
        assert all(close(a, b) for (a, _), (b, _) in zip(answers, expected, strict=True))
        assert ask(made, "loglikelihood", asked) == answers
    texts = [(text, GREEDY | {"max_gen_toks": 9}) for text, _ in pairs(25) if text]
    if name == "Phi-3":
        assert ask(made, "generate_until", texts) == Hflm(model).ask("generate_until", texts)


@pytest.mark.parametrize("config", [Gemma3nTextConfig(), Gemma4TextConfig()])
def test_layers_of_several_sizes_are_tried(config):
    assert exact_way(config) == "trees_by_type"
    assert TokenSize.of(config).layer >= 2 * config.num_key_value_heads * 256


def test_a_broken_config_is_run_whole():
    config = family_config("Llama")
    config.num_key_value_heads = 3
    assert exact_way(config) in WAYS


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


def test_every_family_is_tried():
    assert set(BY_TYPE) < set(FAMILIES)
