"""Texts are those of lm-eval's own model, for every family."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from lm_eval.api.instance import Instance

from backends.conftest import DEVICE, GREEDY, Hflm, ask, asker, random_model, word
from evomerge.backends.passes import WAYS
from evomerge.errors import CandidateError, InputError
from families import family_config
from fixtures import make_tokenizer


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
def test_generations(settings, model):
    draw = random.Random(3)
    shots = word(draw, 20, 20)
    prompts = [shots + word(draw, 1, 14) for _ in range(14)]
    # One that others begin with, one twice, one too long.
    prompts += [prompts[0][:-1], prompts[1], word(draw, 70, 70)]
    asked = [(prompt, settings) for prompt in prompts]
    expected = Hflm(model).ask("generate_until", asked)
    for way, limits in itertools.product((None, "plain"), ({}, {"cached": 200})):
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
