"""The proof of the timing statistics: 2,000 simulated trials at each ratio; with -s the coverage table is printed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import pytest
from simulated_machine import SimulatedMachine

from lowrank_bench.measurement.statistics import (
    RatioInterval,
    noise_floor,
    pool_processes,
    processes_disagree,
    verdict,
)
from lowrank_bench.measurement.timing import time_pairs

pytestmark = pytest.mark.timeout(1800)

TRIALS = 2000
PROCESSES = 5


def interval(seed: int, ratio: float, **noise: float) -> RatioInterval:
    machine = SimulatedMachine(seed, ratio, **noise)
    return time_pairs(machine.dense, machine.compressed, clock=machine.clock).interval


def coverage(name: str, intervals: Sequence[RatioInterval], ratio: float) -> float:
    share = sum(i.low <= ratio <= i.high for i in intervals) / len(intervals)
    width = median(i.half_width for i in intervals)
    print(f"{name}, true ratio {ratio}: covered in {share:.1%} of {len(intervals)}, median half-width {width:.2%}")
    return share


@pytest.mark.parametrize("compressed_ms", [0.3, 4, 60])
@pytest.mark.parametrize("ratio", [0.8, 1, 1.25, 8])
def test_one_process_covers_the_true_ratio(ratio, compressed_ms):
    intervals = [interval(seed, ratio, compressed_ms=compressed_ms) for seed in range(TRIALS)]
    assert coverage(f"one process, {compressed_ms} ms", intervals, ratio) >= 0.93


@pytest.mark.parametrize("process_effect", [0.0, 0.01])
@pytest.mark.parametrize("ratio", [0.8, 1, 1.25, 8])
def test_five_processes_cover_the_true_ratio_with_and_without_process_effects(ratio, process_effect):
    pooled = []
    for trial in range(TRIALS):
        seeds = range(PROCESSES * trial, PROCESSES * (trial + 1))
        pooled.append(pool_processes([interval(seed, ratio, process_effect=process_effect).ratio for seed in seeds]))
    assert coverage(f"five processes, effect {process_effect:.0%}", pooled, ratio) >= 0.93


def test_a_model_against_itself_is_seldom_called_faster_or_slower():
    wrong = sum(verdict(interval(seed, 1), noise_floor(interval(seed + TRIALS, 1))) != "same" for seed in range(TRIALS))
    print(f"A/A verdicts: {wrong} of {TRIALS} wrong")
    assert wrong <= 0.05 * TRIALS


@pytest.mark.parametrize(("process_effect", "least", "most"), [(0.0, 0, 0.05), (0.05, 0.9, 1)])
def test_processes_are_called_unstable_where_they_differ_and_seldom_elsewhere(process_effect, least, most):
    unstable = sum(
        processes_disagree(
            [interval(PROCESSES * row + i, 1.25, process_effect=process_effect) for i in range(PROCESSES)]
        )
        for row in range(TRIALS // 4)
    )
    print(f"process effect {process_effect:.0%}: {unstable} of {TRIALS // 4} rows unstable")
    assert least <= unstable / (TRIALS // 4) <= most
