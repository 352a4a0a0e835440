"""Combined scores and parents, of a small run on real components."""

from __future__ import annotations

import pytest

import evomerge
from evomerge.score import mean
from fixtures import make_workspace


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a search whose two objectives are metrics of one task."""
    folder = tmp_path_factory.mktemp("results")
    config = make_workspace(
        folder,
        score={
            "objectives": [
                {"task": "toy_choose", "metric": "acc", "preference": 3.0},
                {"task": "toy_choose", "metric": "brier_score"},
            ]
        },
        search={"budget": {"candidates": 3}, "finalists": 2},
        workers={"kind": "inline"},
    )
    return evomerge.run(config, folder / "run").results


def losses(results, candidate: str, split: str) -> list[dict[int, float]]:
    shares = results.loss_shares(candidate, split)
    return [share.documents["toy_choose"] for share in shares]


def test_metrics_of_one_task_are_combined_document_by_document(results):
    for candidate in ("base", "uniform", results.state.decided["chosen"]):
        accuracy, brier = losses(results, candidate, "search")
        expected = mean([-(3.0 * accuracy[d] + brier[d]) / 4.0 for d in accuracy])
        combined = results.combined(candidate, "search")
        assert combined.value == pytest.approx(expected.value)
        assert combined.standard_error == pytest.approx(expected.standard_error)
        assert combined.num_documents == 10


def test_differences_are_paired_across_metrics(results):
    (a, b), (c, d) = (losses(results, name, "holdout") for name in ("base", "uniform"))
    expected = mean([(3.0 * (c[n] - a[n]) + d[n] - b[n]) / 4.0 for n in a])
    difference = results.difference("base", "uniform", "holdout")
    assert difference.value == pytest.approx(expected.value)
    reach = 1.959963984540054 * expected.standard_error
    assert difference.high - difference.value == pytest.approx(reach)


def test_parents_are_the_models_of_the_pool(results):
    assert results.parents == ["base", "parent-expert0", "parent-expert1"]
