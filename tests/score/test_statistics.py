"""Statistics against numpy, lm-eval and direct computation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.metrics import mean_stderr

from evomerge.errors import CandidateError
from evomerge.score import (
    Estimate,
    Objective,
    Row,
    Share,
    combine,
    combine_shares,
    mean,
    merge_moments,
    moments_of,
    paired_difference,
)

RELATIVE = 1e-12
"""Float64 sums of a few hundred numbers in another order."""

# Squares of smaller numbers are below float64's normal range.
numbers = st.floats(-1e3, 1e3).map(lambda number: number if abs(number) > 1e-140 else 0.0)
samples = st.lists(numbers, min_size=2, max_size=200)


def means(values: list[dict], tasks: list[str] | None = None) -> list[Share]:
    """Of objectives that are means; by default of one task."""
    return [
        Share.of_mean(task, each)
        for task, each in zip(tasks or ["task"] * len(values), values, strict=True)
    ]


class TestMean:
    @settings(deadline=None)
    @given(values=samples)
    def test_against_numpy(self, values):
        estimate = mean(values)
        assert estimate.value == pytest.approx(np.mean(values), rel=RELATIVE, abs=1e-12)
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert estimate.standard_error == pytest.approx(error, rel=RELATIVE)
        assert estimate.num_documents == len(values)

    @settings(deadline=None)
    @given(values=st.lists(st.integers(0, 1), min_size=2, max_size=300))
    def test_against_lm_eval(self, values):
        # Accuracies; lm-eval sums in plain Python.
        assert mean(values).standard_error == pytest.approx(mean_stderr(values), rel=1e-9)

    def test_of_a_single_document(self):
        estimate = mean([0.5])
        assert estimate.value == 0.5
        assert math.isnan(estimate.standard_error)


class TestCombine:
    def test_by_hand(self):
        total = combine([Estimate(0.5, 0.03, 100), Estimate(0.9, 0.04, 50)], [1.0, 1.0])
        assert total.value == pytest.approx(0.7)
        assert total.standard_error == pytest.approx(0.025)  # half of the hypotenuse of 3, 4
        assert total.num_documents == 150

    def test_preferences_are_normalized(self):
        estimates = [Estimate(0.2, 0.01, 10), Estimate(0.8, 0.02, 10)]
        assert combine(estimates, [3.0, 1.0]) == combine(estimates, [0.75, 0.25])
        assert combine(estimates, [3.0, 1.0]).value == pytest.approx(0.35)
        assert combine(estimates, [1.0, 0.0]).value == pytest.approx(0.2)

    def test_of_one(self):
        estimate = Estimate(0.3, 0.05, 40)
        assert combine([estimate], [7.0]) == estimate

    def test_against_simulation(self):
        # The error of a sum of independent means, seen in 4,000 repeats: its relative standard
        # error is 1 / sqrt(8,000) = 1.1 %; five of them.
        rng = np.random.default_rng(0)
        first, second = rng.normal(0, 1.0, (4000, 50)), rng.normal(0, 3.0, (4000, 30))
        shares = np.array([0.7, 0.3])
        spread = (first.mean(1) * shares[0] + second.mean(1) * shares[1]).std(ddof=1)
        estimates = [Estimate(0.0, 1.0 / math.sqrt(50), 50), Estimate(0.0, 3.0 / math.sqrt(30), 30)]
        assert combine(estimates, shares).standard_error == pytest.approx(spread, rel=0.055)


class TestPairedDifference:
    def test_against_direct_computation(self):
        rng = np.random.default_rng(1)
        tasks, preferences = ("one", "two"), (2.0, 1.0)
        first, second, values, variances = [], [], [], []
        for size in (120, 45):
            documents = rng.permutation(1000)[:size]
            ours = rng.random(size)
            theirs = np.clip(ours + rng.normal(-0.05, 0.1, size), 0, 1)
            first.append(dict(zip(documents.tolist(), ours.tolist(), strict=True)))
            # The same documents in another order.
            order = rng.permutation(size)
            second.append({int(documents[i]): float(theirs[i]) for i in order})
            values.append((ours - theirs).mean())
            variances.append((ours - theirs).var(ddof=1) / size)
        shares = np.asarray(preferences) / 3
        value = float(shares @ values)
        reach = 1.959963984540054 * math.sqrt(float(shares**2 @ variances))
        difference = paired_difference(means(first, tasks), means(second, tasks), preferences)
        assert difference.value == pytest.approx(value, rel=1e-9)
        assert difference.low == pytest.approx(value - reach, rel=1e-9)
        assert difference.high == pytest.approx(value + reach, rel=1e-9)
        opposite = paired_difference(means(second, tasks), means(first, tasks), preferences)
        assert opposite.value == pytest.approx(-value, rel=1e-9)
        assert opposite.low == pytest.approx(-difference.high, rel=1e-9)

    def test_pairing_sees_what_two_estimates_do_not(self):
        # Each document is a tenth better, and documents differ much more than that.
        base = {n: n / 10 for n in range(10)}
        better = {n: value + 0.1 + 0.001 * (n % 2) for n, value in base.items()}
        difference = paired_difference(means([better]), means([base]), [1.0])
        assert difference.distinguishable
        assert difference.low > 0.09
        assert mean(list(base.values())).standard_error > 0.09

    def test_a_model_with_itself(self):
        scores = {n: float(n % 2) for n in range(20)}
        difference = paired_difference(means([scores]), means([scores]), [1.0])
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert not difference.distinguishable

    def test_worse_is_distinguishable_too(self):
        better, worse = {n: 1.0 + 0.01 * n for n in range(9)}, {n: 0.005 * n for n in range(9)}
        assert paired_difference(means([worse]), means([better]), [1.0]).distinguishable

    def test_the_interval_holds_what_it_says(self):
        rng = np.random.default_rng(2)
        truth, hits, repeats = 0.1, 0, 1000
        for _ in range(repeats):
            first = rng.normal(0.5 + truth, 0.3, 100)
            second = rng.normal(0.5, 0.3, 100)
            difference = paired_difference(
                means([dict(enumerate(first.tolist()))]),
                means([dict(enumerate(second.tolist()))]),
                [1.0],
            )
            hits += difference.low <= truth <= difference.high
        # Normal instead of t with 99 degrees of freedom: 94.7 %; five standard errors of 0.7 %.
        assert abs(hits / repeats - 0.947) < 0.035

    def test_two_metrics_of_one_task_vary_together(self):
        """Of one metric twice the interval is that of the metric, and not one narrower."""
        rng = np.random.default_rng(3)
        first = dict(enumerate(rng.normal(0.6, 0.3, 50).tolist()))
        second = dict(enumerate(rng.normal(0.5, 0.3, 50).tolist()))
        alone = paired_difference(means([first]), means([second]), [1.0])
        twice = paired_difference(means([first] * 2), means([second] * 2), [1.0, 3.0])
        assert twice.value == pytest.approx(alone.value)
        assert twice.high - twice.low == pytest.approx(alone.high - alone.low)
        apart = paired_difference(
            means([first] * 2, ["one", "two"]), means([second] * 2, ["one", "two"]), [1.0, 1.0]
        )
        assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / math.sqrt(2))

    def test_metrics_that_make_up_for_each_other(self):
        rng = np.random.default_rng(4)
        values = rng.normal(0.0, 0.3, 50)
        up, down = dict(enumerate(values.tolist())), dict(enumerate((1.0 - values).tolist()))
        combined = combine_shares(means([up, down]), [1.0, 1.0])
        assert combined.value == pytest.approx(0.5)
        assert combined.standard_error == pytest.approx(0.0, abs=1e-12)
        assert combined.num_documents == 50

    def test_models_that_depend_on_other_tasks(self):
        """As the worst of several is."""
        rng = np.random.default_rng(5)
        one, other = (dict(enumerate(rng.normal(0.5, 0.3, n).tolist())) for n in (40, 60))
        difference = paired_difference(means([one], ["one"]), means([other], ["other"]), [1.0])
        parts = [mean(list(values.values())) for values in (one, other)]
        assert difference.value == pytest.approx(parts[0].value - parts[1].value)
        error = math.hypot(*(part.standard_error for part in parts))
        assert difference.high - difference.value == pytest.approx(1.959963984540054 * error)

    def test_other_documents(self):
        with pytest.raises(ValueError, match="same documents"):
            paired_difference(means([{1: 0.5, 2: 0.5}]), means([{1: 0.5, 3: 0.5}]), [1.0])


def objective(**changes) -> Objective:
    fields = {
        "name": "task",
        "task": "task",
        "metric": "acc",
        "filter": "none",
        "higher_is_better": True,
        "preference": 1.0,
    }
    return Objective(**(fields | changes))


def moments(values) -> tuple[int, float, float]:
    rows = [Row("task", n, {"acc": value}) for n, value in enumerate(values)]
    return moments_of(rows, [objective()])["task"]


class TestMoments:
    @settings(deadline=None)
    @given(values=samples, cuts=st.lists(st.integers(1, 199), max_size=5))
    def test_blocks_do_not_matter(self, values, cuts):
        ends = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
        parts = [moments(values[start:stop]) for start, stop in pairwise(ends)]
        merged, whole = merge_moments(parts), mean(values)
        # Cancellation: against the size of the numbers, not of their mean or spread.
        size = max(1e-300, *map(abs, values))
        assert merged.value == pytest.approx(whole.value, rel=RELATIVE, abs=1e-14 * size)
        assert merged.standard_error == pytest.approx(
            whole.standard_error, rel=1e-9, abs=1e-14 * size
        )
        assert merged.num_documents == len(values)

    def test_a_large_mean_hides_no_spread(self):
        values = [1e8 + x for x in (0.0, 1.0, 2.0, 3.0)]
        merged = merge_moments([moments(values[:2]), moments(values[2:])])
        # A sum of squares would have lost the spread; numbers of 1e8 have eight digits left.
        assert merged.standard_error == pytest.approx(mean(values).standard_error, rel=1e-7)

    def test_a_single_document(self):
        merged = merge_moments([moments([0.25])])
        assert merged.value == 0.25
        assert math.isnan(merged.standard_error)

    def test_objectives_of_other_tasks_are_left_out(self):
        rows = [Row("task", n, {"acc": 1.0, "acc/strict": 0.0}) for n in range(4)]
        objectives = [
            objective(),
            objective(name="task/strict", filter="strict"),
            objective(name="other", task="other"),
        ]
        assert moments_of(rows, objectives) == {
            "task": (4, 1.0, 0.0),
            "task/strict": (4, 0.0, 0.0),
        }

    @pytest.mark.parametrize("bad", [{"acc": math.nan}, {"acc": math.inf}, {}])
    def test_values_that_are_not_finite(self, bad):
        rows = [Row("task", 0, {"acc": 1.0}), Row("task", 1, bad)]
        with pytest.raises(CandidateError, match="task.*acc"):
            moments_of(rows, [objective()])
