"""Timing in somebody else's rounds: they time the compressed model, the dense one is timed around each round."""

from __future__ import annotations

import math
import time
from statistics import median
from typing import NamedTuple

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.statistics import RatioInterval, fewest_values, median_ratio_interval
from lowrank_bench.measurement.timing import LEAD_IN_NS, LOOPED_NS, SHORT_NS, Call, Clock, least_ns

WARM_UPS = 3


class Round(NamedTuple):
    """Nanoseconds of a call: dense before, compressed, dense after."""

    before: float
    compressed: float
    after: float


class Rounds:
    """Rounds of dense, compressed, dense: call ``before``, ``compressed`` and ``after`` in turn.

    The dense time before is compared in one round, that after in the next, so that a drift within the rounds cancels;
    one over the other is a round's A/A control. Their mean would be less noisy than the single time it is divided by,
    and where noise only adds time, the median of such ratios is above 1 for a model against itself. As in
    ``time_pairs``, sides of under 1 ms are looped to 2 ms, the faster side is repeated until both take about equally
    long, and each timed side follows untimed calls of its own. ``compressed_calls``: calls of the compressed model in
    one round. ``clock`` returns nanoseconds.
    """

    def __init__(self, dense: Call, compressed: Call, clock: Clock = time.perf_counter_ns) -> None:
        """Warm both sides up."""
        self._dense, self._compressed, self._clock = dense, compressed, clock
        warm = [(least_ns(dense, clock), least_ns(compressed, clock)) for _ in range(WARM_UPS)]
        times = min(ns for ns, _ in warm), min(ns for _, ns in warm)
        loops = math.ceil(LOOPED_NS / min(times)) if min(times) < SHORT_NS else 1
        self._dense_calls, self.compressed_calls = (loops * round(max(times) / t) for t in times)
        self._dense_lead_in, self._compressed_lead_in = (math.ceil(LEAD_IN_NS / t) for t in times)
        self._before = self._between = 0.0
        self.rounds: list[Round] = []

    def before(self) -> None:
        """Time the dense model, and lead the compressed one in."""
        self._before = self._timed_dense()
        _repeat(self._compressed, self._compressed_lead_in)

    def compressed(self) -> None:
        """The round itself."""
        start = self._clock()
        _repeat(self._compressed, self.compressed_calls)
        self._between = (self._clock() - start) / self.compressed_calls

    def after(self) -> None:
        """Time the dense model again."""
        self.rounds.append(Round(self._before, self._between, self._timed_dense()))

    @property
    def speedup(self) -> RatioInterval:
        """Median of dense over compressed, round by round, with its 95 % interval. Raises InvalidInput for fewer than
        6 rounds.
        """
        dense = [r.after if number % 2 else r.before for number, r in enumerate(self.rounds)]
        return median_ratio_interval([ns / r.compressed for ns, r in zip(dense, self.rounds, strict=True)])

    @property
    def control(self) -> RatioInterval:
        """The same for dense before over dense after."""
        return median_ratio_interval([r.before / r.after for r in self.rounds])

    @property
    def dense_ms(self) -> float:
        """p50 of the dense model's time per call."""
        return median([ns for r in self.rounds for ns in (r.before, r.after)]) / 1e6

    def _timed_dense(self) -> float:
        _repeat(self._dense, self._dense_lead_in)
        start = self._clock()
        _repeat(self._dense, self._dense_calls)
        return (self._clock() - start) / self._dense_calls


def check_rounds(count: int) -> None:
    """Raise InvalidInput unless so many rounds have an interval."""
    if not (isinstance(count, int) and count >= fewest_values()):
        raise InvalidInput(f"rounds must be an integer of at least {fewest_values()}, or there is no interval: {count}")


def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()
