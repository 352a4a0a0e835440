"""Gains that shrink on documents that did not steer the choice."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest

from evomerge.choice.finalists import choose_finalists
from evomerge.choice.overfit import shrinkages
from evomerge.record.verdicts import shrinkage_lines
from evomerge.search.baselines import baselines
from runs import give_scores, new_run

SIZES = {"search": 20, "validation": 16, "holdout": 4}


@pytest.mark.parametrize(("num_candidates", "skill"), [(200, 0.5), (6, 0.9)])
def test_choosing_among_many_noisy_scores_is_told_of(num_candidates, skill, tmp_path):
    """Two hundred coins, of which the best on twenty documents are finalists; and a real gain."""
    rng = random.Random(11)
    run = new_run(tmp_path, score={"objectives": [{"task": "toy_write"}], "splits": SIZES})

    def answers(share: float):
        drawn: dict[int, float] = {}
        return lambda _task, document: drawn.setdefault(document, float(rng.random() < share))

    for name, recipe in baselines(run).items():
        candidate = run.add(name, "baseline", recipe)
        for split in ("search", "validation"):
            give_scores(run, candidate, 0.5, split)
    owns = {}
    for number in range(num_candidates):
        candidate = run.add_asked(number, tuple(rng.random() for _ in run.space(0).dimensions))
        owns[candidate.id] = answers(skill)
        give_scores(run, candidate, owns[candidate.id])
    ids = choose_finalists(run.results, run.searched_phase(0), 10)
    run.record("decided", what="finalists", value=ids)
    for name in ids:
        give_scores(run, run.state.candidates[name], owns[name], "validation")
    (found,) = shrinkages(run.results)
    run.close()
    assert found.of == "finalists" and set(found.candidates) == set(ids)
    assert found.value == pytest.approx(found.value_first - found.value_second)
    table = {"combined_unit": run.results.combined_unit, "shrinkage": [asdict(found)]}
    lines = shrinkage_lines(table)
    if skill == 0.5:
        assert found.low > 0.0
        gains = [
            value - (not found.is_gain) * 0.5 for value in (found.value_first, found.value_second)
        ]
        assert gains[0] > 0.15 > abs(gains[1])
        (line,) = lines
        assert line.startswith("overfit: the mean ") and " of 10 finalists got worse, from " in line
        assert "take more search documents" in line
    else:
        assert not found.low > 0.0
        assert lines == []
