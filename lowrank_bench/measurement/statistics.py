"""Intervals for ratios of times: exact within a process, on logarithms between processes; and what they let one say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import fmean, median, stdev
from typing import Literal, NamedTuple

from lowrank_bench.errors import InvalidInput

Verdict = Literal["faster", "slower", "same"]

# Processes that differ by chance alone are called unstable in one row of a hundred, of forty where each has 30 pairs.
UNSTABLE_LEVEL = 0.01


class RatioInterval(NamedTuple):
    """A ratio of times, dense over compressed, and the interval around it."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width, relative to the ratio."""
        return (self.high - self.low) / (2 * self.ratio)


def median_ratio_interval(ratios: Sequence[float], confidence: float = 0.95) -> RatioInterval:
    """Return the median of pair ratios with its exact order-statistic interval.

    The k-th smallest and the k-th largest of n values miss the median of their distribution, whatever it is, with
    probability at most 2 P(Bin(n, 1/2) < k); k is the largest that keeps this within 1 - confidence (n = 30: the 10th
    and the 21st value). Raises InvalidInput where even the extremes do not (fewer than 6 values at 95 %), and for a
    ratio that is not positive and finite.
    """
    ordered = sorted(ratios)
    if not all(0 < ratio < math.inf for ratio in ordered):
        raise InvalidInput("pair ratios must be positive and finite: a side that took no time cannot be compared")
    rank = _order_statistic(len(ordered), _checked(confidence))
    if rank == 0:
        needed = fewest_values(confidence)
        raise InvalidInput(f"{len(ordered)} pairs have no interval at confidence {confidence}: time at least {needed}")
    return RatioInterval(median(ordered), ordered[rank - 1], ordered[-rank])


def fewest_values(confidence: float = 0.95) -> int:
    """Return the least number of values whose median has an interval: 2 (1/2)^n <= 1 - confidence."""
    return math.ceil(1 - math.log2(1 - _checked(confidence)))


def pool_processes(medians: Sequence[float], confidence: float = 0.95) -> RatioInterval:
    """Return the geometric mean of the medians of fresh processes, with a t-interval on their logarithms.

    Memory layout and the machine's state differ from process to process, which the pairs of one process cannot show:
    the spread of the medians can. Raises InvalidInput for fewer than two processes.
    """
    if len(medians) < 2 or not all(0 < value < math.inf for value in medians):
        raise InvalidInput(f"an interval over processes needs at least 2 positive, finite medians, got {list(medians)}")
    logs = [math.log(value) for value in medians]
    center = fmean(logs)
    from scipy.special import stdtrit  # half a second, which no child process needs

    quantile = float(stdtrit(len(logs) - 1, (1 + _checked(confidence)) / 2))
    half = quantile * stdev(logs) / math.sqrt(len(logs))
    return RatioInterval(math.exp(center), math.exp(center - half), math.exp(center + half))


def processes_disagree(intervals: Sequence[RatioInterval]) -> bool:
    """Tell whether processes differ by more than their own 95 % intervals explain: Cochran's Q at the 1 % level.

    Q = sum w_i (y_i - y)^2 over the logarithms y_i of the ratios, with w_i = 1 / s_i^2, s_i from the interval's width,
    and y their weighted mean; chi-squared with one degree of freedom less than processes where only the noise within
    them is at work (Cochran 1954). Raises InvalidInput for fewer than two processes.
    """
    if len(intervals) < 2:
        raise InvalidInput(f"processes can disagree only where there are at least 2, got {len(intervals)}")
    logs = [math.log(interval.ratio) for interval in intervals]
    # A 95 % interval is 2 * 1.96 standard errors wide; the floor lets medians without any spread be compared at all.
    errors = [max(math.log(interval.high / interval.low) / (2 * 1.96), 1e-9) for interval in intervals]
    weights = [error**-2 for error in errors]
    center = fmean(logs, weights)
    q = sum(weight * (value - center) ** 2 for weight, value in zip(weights, logs, strict=True))
    from scipy.special import chdtrc

    return bool(chdtrc(len(logs) - 1, q) < UNSTABLE_LEVEL)


def noise_floor(control: RatioInterval) -> float:
    """How far from 1 the interval of a model against its own copy (A/A) reaches, as a relative difference."""
    return max(control.high, 1 / control.low) - 1


def verdict(interval: RatioInterval, floor: float) -> Verdict:
    """Call the compressed model faster or slower only where its interval, widened by the noise floor, excludes 1."""
    if interval.low / (1 + floor) > 1:
        return "faster"
    if interval.high * (1 + floor) < 1:
        return "slower"
    return "same"


@cache
def _order_statistic(n: int, confidence: float) -> int:
    """Largest k with 2 P(Bin(n, 1/2) < k) <= 1 - confidence, in exact integers; 0 where there is none."""
    allowed = int(Fraction(1 - confidence) / 2 * 2**n)
    cumulative = 0
    for k in range(n):
        cumulative += math.comb(n, k)
        if cumulative > allowed:
            return k
    return 0


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must lie between 0 and 1, got {confidence}")
    return confidence
