"""The paired timing loop: two callables, interleaved on one machine, until their ratio is known well enough."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Literal

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.statistics import RatioInterval, fewest_values, median_ratio_interval

if sys.platform != "win32":
    import resource

StopReason = Literal["precision", "max_seconds", "max_pairs"]
Call = Callable[[], object]
Clock = Callable[[], int]

# A call shorter than SHORT_NS drowns in the clock and the interpreter, so calls are repeated until they fill LOOPED_NS.
SHORT_NS = 1_000_000
LOOPED_NS = 2_000_000
# After the other model's calls a model finds cold caches: its calls took up to 2.1 times as long in the first ms, 1 to
# 2 % longer after 10 to 20 ms (ResNet-18 and a separable one, 64 x 64 pixels, ONNX Runtime, OpenVINO and eager). Beside
# a call of LONG_NS that is nothing.
LEAD_IN_NS = 20_000_000
LONG_NS = 1_000_000_000
# A look at the width after each pair stops on lucky streaks: the 95 % interval then covered in 94 % of 4,000 simulated
# trials. Two narrow looks in a row, a tenth more pairs apart, restore 95 %.
LOOK_GROWTH = 1.1


@dataclass(frozen=True)
class Pairs:
    """Raw times of interleaved pairs, and why the loop stopped.

    ``dense_ns`` and ``compressed_ns``: wall times in ns, ``repeats[0]`` and ``repeats[1]`` of them in a row for each
    pair, every one over ``loops`` calls. CPU times of the process (ns) and its involuntary context switches: one per
    pair. ``order``: one letter per side timed, as they ran, A for dense and B for compressed. ``seconds``: what it all
    took, with the untimed calls between, without the warm-up.
    """

    dense_ns: tuple[int, ...]
    compressed_ns: tuple[int, ...]
    dense_cpu_ns: tuple[int, ...]
    compressed_cpu_ns: tuple[int, ...]
    dense_switches: tuple[int, ...]
    compressed_switches: tuple[int, ...]
    order: str
    repeats: tuple[int, int]
    loops: int
    stop_reason: StopReason
    seconds: float

    def __len__(self) -> int:
        return len(self.dense_cpu_ns)

    @property
    def ratios(self) -> list[float]:
        """Dense time over compressed time, pair by pair."""
        return _ratios(self.dense_ns, self.compressed_ns, self.repeats)

    @property
    def interval(self) -> RatioInterval:
        """Median of the pair ratios with its 95 % interval."""
        return median_ratio_interval(self.ratios)

    def milliseconds(self, side: Literal["dense", "compressed"]) -> tuple[float, float]:
        """p50 and p90 of one side's time per call, in ms; calls that were looped count by the means of their loops."""
        times = [wall / self.loops / 1e6 for wall in (self.dense_ns if side == "dense" else self.compressed_ns)]
        return median(times), quantiles(times, n=10, method="inclusive")[-1]


class _Side:
    """One of the two callables, and its samples so far."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self.call, self.clock = call, clock
        self.lead_in, self.repeats = 0, 1
        self.wall: list[int] = []
        self.cpu: list[int] = []
        self.switches: list[int] = []

    def sample(self, loops: int) -> None:
        """``lead_in`` untimed calls, then ``repeats`` wall times over ``loops`` calls each."""
        for _ in range(self.lead_in):
            self.call()
        switches, cpu, marks = _involuntary_switches(), time.process_time_ns(), [self.clock()]
        for _ in range(self.repeats):
            for _ in range(loops):
                self.call()
            marks.append(self.clock())
        self.cpu.append(time.process_time_ns() - cpu)
        self.switches.append(_involuntary_switches() - switches)
        self.wall.extend(end - begun for begun, end in pairwise(marks))


def time_pairs(
    dense: Call,
    compressed: Call,
    *,
    precision: float = 0.01,
    max_seconds: float = 60.0,
    min_pairs: int = 30,
    max_pairs: int = 1000,
    warmup_pairs: int = 10,
    warmup_seconds: float = 2.0,
    clock: Clock = time.perf_counter_ns,
) -> Pairs:
    """Time two callables in interleaved pairs, in balanced order (AB BA AB BA ...), until their ratio is known.

    The loop stops when the 95 % interval of the median pair ratio is at most ``precision`` to each side, relative to
    the ratio, at two looks in a row. It never looks at where the interval lies: stopping on significance would turn
    chance into speed. It also stops where two more pairs would exceed ``max_pairs`` or, going by those before them,
    ``max_seconds`` after the warm-up; though not before the 6 pairs without which there is no interval. The warm-up
    ends after ``warmup_pairs`` pairs or ``warmup_seconds``, whichever comes first. ``clock`` returns nanoseconds.
    Raises InvalidInput for a bound out of its range.

    What interleaving alone would leave wrong:
    calls under 1 ms are looped to 2 ms, equally often on both sides, so that the clock does not count;
    the faster side is repeated until both take about equally long, or the slower one would meet more interruptions;
    each timed side follows untimed calls of its own, 20 ms or one call, so that it is timed as it runs in use, alone,
    and not on the caches that the other side has just emptied; garbage collection is off.
    """
    check_bounds(precision, max_seconds)
    fewest = fewest_values()
    if not fewest <= min_pairs <= max_pairs:
        raise InvalidInput(
            f"min_pairs must be at least {fewest} and at most max_pairs, got {min_pairs} and {max_pairs}"
        )
    a, b = _Side(dense, clock), _Side(compressed, clock)
    with no_garbage_collection():
        times = _warm_up(a, b, warmup_pairs, warmup_seconds, clock)
        loops = math.ceil(LOOPED_NS / min(times)) if min(times) < SHORT_NS else 1
        lead_in = max(LEAD_IN_NS, *times) if max(times) < LONG_NS else 0  # one for both: then ABBA cancels a drift
        a.lead_in, b.lead_in = (math.ceil(lead_in / t) for t in times)
        a.repeats, b.repeats = repeats = (round(max(times) / times[0]), round(max(times) / times[1]))
        start, look_at, was_narrow, reason = clock(), float(min_pairs), False, None
        while reason is None:
            for side in (a, b, b, a):
                side.sample(loops)
            done, elapsed = len(a.cpu), clock() - start
            full, late = done + 2 > max_pairs, elapsed * (1 + 2 / done) > max_seconds * 1e9
            if done >= look_at or (done >= fewest and (full or late)):
                half_width = median_ratio_interval(_ratios(a.wall, b.wall, repeats)).half_width
                narrow = done >= min_pairs and half_width <= precision
                reason = _stop_reason(narrow and (was_narrow or full or late), full, late)
                look_at, was_narrow = done * LOOK_GROWTH, narrow
    return Pairs(
        dense_ns=tuple(a.wall),
        compressed_ns=tuple(b.wall),
        dense_cpu_ns=tuple(a.cpu),
        compressed_cpu_ns=tuple(b.cpu),
        dense_switches=tuple(a.switches),
        compressed_switches=tuple(b.switches),
        order="ABBA" * (done // 2),
        repeats=repeats,
        loops=loops,
        stop_reason=reason,
        seconds=elapsed / 1e9,
    )


def least_ns(call: Call, clock: Clock = time.perf_counter_ns, duration: int = LEAD_IN_NS, fewest: int = 1) -> int:
    """The least time of a call in ns, over ``duration`` ns and at least so many calls."""
    marks = [clock()]
    while len(marks) <= fewest or marks[-1] - marks[0] < duration:
        call()
        marks.append(clock())
    return max(min(end - begun for begun, end in pairwise(marks)), 1)


def check_bounds(precision: float, max_seconds: float) -> None:
    """Raise InvalidInput unless both are positive and finite."""
    for name, value in (("precision", precision), ("max_seconds", max_seconds)):
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise InvalidInput(f"{name} must be a positive, finite number, got {value!r}")


def _warm_up(a: _Side, b: _Side, pairs: int, seconds: float, clock: Clock) -> tuple[int, int]:
    """Run at least one pair, and no more than the bounds allow; the least time per call of each side, in ns."""
    start, times = clock(), [(least_ns(a.call, clock), least_ns(b.call, clock))]
    while len(times) < pairs and clock() - start < seconds * 1e9:
        times.append((least_ns(a.call, clock), least_ns(b.call, clock)))
    return min(t[0] for t in times), min(t[1] for t in times)


def _ratios(dense: Sequence[int], compressed: Sequence[int], repeats: tuple[int, int]) -> list[float]:
    """Mean time of a call in each pair's dense side over that in its compressed side."""
    r, s = repeats
    return [
        sum(dense[i * r : (i + 1) * r]) / r / (sum(compressed[i * s : (i + 1) * s]) / s) for i in range(len(dense) // r)
    ]


def _stop_reason(narrow: bool, full: bool, late: bool) -> StopReason | None:
    if narrow:
        return "precision"
    if full:
        return "max_pairs"
    return "max_seconds" if late else None


def _involuntary_switches() -> int:
    """Involuntary context switches of all threads of the process so far; 0 where the system does not count them."""
    return 0 if sys.platform == "win32" else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """No garbage collection within; afterwards as before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
