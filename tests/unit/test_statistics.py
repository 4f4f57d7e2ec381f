from __future__ import annotations

import math
import random

import pytest
from scipy.stats import binom, ttest_1samp

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.statistics import (
    RatioInterval,
    median_ratio_interval,
    noise_floor,
    pool_processes,
    processes_disagree,
    verdict,
)


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (30, 10, 21), (40, 14, 27), (60, 22, 39), (100, 40, 61)])
def test_interval_ends_at_the_tabulated_order_statistics(n, low, high):
    values = random.Random(n).sample(range(1, n + 1), n)
    interval = median_ratio_interval(values)
    assert interval == ((n + 1) / 2, low, high)


@pytest.mark.parametrize("n", [8, 17, 200, 2000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_interval_is_the_narrowest_that_holds_its_confidence(n, confidence):
    rank = int(median_ratio_interval(range(1, n + 1), confidence).low)
    assert 2 * binom.cdf(rank - 1, n, 0.5) <= 1 - confidence < 2 * binom.cdf(rank, n, 0.5)


def test_interval_of_reciprocal_ratios_is_the_reciprocal_interval():
    ratios = [random.Random(0).lognormvariate(0, 0.1) for _ in range(31)]
    ratio, low, high = median_ratio_interval(ratios)
    assert median_ratio_interval([1 / r for r in ratios]) == pytest.approx((1 / ratio, 1 / high, 1 / low))


def test_one_wild_value_moves_nothing():
    ratios = [1 + i / 1000 for i in range(40)]
    assert median_ratio_interval([*ratios[:-1], 1e6]) == median_ratio_interval(ratios)


@pytest.mark.parametrize(
    "ratios", [[], [1.0] * 5, [1.0] * 29 + [math.inf], [1.0] * 29 + [0.0], [1.0] * 29 + [math.nan]]
)
def test_ratios_without_an_interval_are_refused(ratios):
    with pytest.raises(InvalidInput):
        median_ratio_interval(ratios)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan])
def test_confidence_outside_0_to_1_is_refused(confidence):
    with pytest.raises(InvalidInput, match="confidence"):
        median_ratio_interval([1.0] * 30, confidence)


def test_processes_are_pooled_by_a_t_interval_on_logarithms():
    medians = [2.4, 2.5, 2.45, 2.6, 2.38]
    peer = ttest_1samp([math.log(m) for m in medians], 0).confidence_interval(0.95)
    pooled = pool_processes(medians)
    assert (pooled.low, pooled.high) == pytest.approx((math.exp(peer.low), math.exp(peer.high)))
    assert pooled.ratio == pytest.approx(math.prod(medians) ** 0.2)


@pytest.mark.parametrize("medians", [[], [1.0], [1.0, 0.0], [1.0, math.inf]])
def test_one_process_or_a_broken_median_has_no_pooled_interval(medians):
    with pytest.raises(InvalidInput):
        pool_processes(medians)


def test_processes_within_their_own_noise_agree_and_one_far_outside_does_not():
    near = [RatioInterval(r, r * 0.99, r * 1.01) for r in (2.0, 2.01, 1.99, 2.005, 2.0)]
    assert not processes_disagree(near)
    assert processes_disagree([*near[:-1], RatioInterval(2.2, 2.18, 2.22)])
    assert not processes_disagree([*near[:-1], RatioInterval(2.2, 1.8, 2.6)])


def test_processes_that_differ_by_noise_alone_are_called_unstable_in_about_one_row_of_a_hundred():
    rng = random.Random(1)
    rows = [
        [median_ratio_interval([rng.lognormvariate(0, 0.03) for _ in range(60)]) for _ in range(5)] for _ in range(500)
    ]
    assert sum(map(processes_disagree, rows)) <= 25


@pytest.mark.parametrize(
    ("interval", "floor", "expected"),
    [
        (RatioInterval(1.10, 1.08, 1.12), 0.02, "faster"),
        (RatioInterval(1.10, 1.08, 1.12), 0.09, "same"),
        (RatioInterval(0.80, 0.78, 0.82), 0.02, "slower"),
        (RatioInterval(0.80, 0.78, 0.98), 0.03, "same"),
        (RatioInterval(1.00, 0.99, 1.01), 0.00, "same"),
    ],
)
def test_verdict_needs_the_interval_widened_by_the_floor_to_exclude_1(interval, floor, expected):
    assert verdict(interval, floor) == expected
    mirrored = RatioInterval(1 / interval.ratio, 1 / interval.high, 1 / interval.low)
    assert verdict(mirrored, floor) == {"faster": "slower", "slower": "faster", "same": "same"}[expected]


def test_floor_is_how_far_the_control_reaches_from_1_on_either_side():
    assert noise_floor(RatioInterval(1.0, 0.98, 1.01)) == pytest.approx(1 / 0.98 - 1)
    assert noise_floor(RatioInterval(1.02, 1.01, 1.03)) == pytest.approx(0.03)
