"""Values of documents whose mean is a metric of all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lm_eval.api.metrics import f1_score, perplexity

from evomerge.score import mean
from evomerge.score.influence import NUM_GROUPS, influences


@pytest.mark.parametrize("n", [2, 12, NUM_GROUPS])
def test_a_mean_gives_its_own_documents(n):
    values = np.random.default_rng(n).normal(size=n)
    assert influences(list(values), np.mean) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("n", [NUM_GROUPS + 1, 200, 600])
def test_groups_keep_the_mean_and_nearly_its_standard_error(n):
    values = np.random.default_rng(n).normal(size=n)
    shares = mean(influences(list(values), np.mean))
    whole = mean(values)
    assert shares.value == pytest.approx(whole.value, abs=1e-12)
    assert shares.standard_error == pytest.approx(whole.standard_error, rel=0.25)


def test_perplexity_has_the_standard_error_of_the_delta_method():
    log_likelihoods = np.random.default_rng(0).normal(-2.0, 0.5, size=400)
    shares = mean(influences(list(log_likelihoods), perplexity))
    assert shares.value == pytest.approx(math.exp(-log_likelihoods.mean()), rel=1e-12)
    delta = shares.value * mean(log_likelihoods).standard_error
    assert shares.standard_error == pytest.approx(delta, rel=0.2)


def test_f1_has_the_standard_error_of_the_bootstrap():
    rng = np.random.default_rng(0)
    golds = rng.integers(2, size=300)
    predictions = np.where(rng.random(300) < 0.8, golds, 1 - golds)
    items = list(zip(golds.tolist(), predictions.tolist(), strict=True))
    shares = mean(influences(items, f1_score))
    assert shares.value == pytest.approx(f1_score(items), abs=1e-12)
    draws = rng.integers(300, size=(400, 300))
    bootstrap = np.std([f1_score([items[i] for i in draw]) for draw in draws], ddof=1)
    assert shares.standard_error == pytest.approx(bootstrap, rel=0.2)


def test_one_document_has_no_standard_error():
    assert math.isnan(mean(influences([-1.0], perplexity)).standard_error)
