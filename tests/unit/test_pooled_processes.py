"""Five processes make one row: what disturbed one of them widens the interval, and costs the others nothing."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic_records import measurement_record, trial

from lowrank_bench.record import ProcessTiming
from lowrank_bench.reporting.frame.pooling import pooled_speedup
from lowrank_bench.running.timing import pool


def process(ratio: float, noise_floor: float = 0.01) -> ProcessTiming:
    timing = measurement_record(trial("tucker", 4)).timing
    assert timing is not None
    own = {"ratio": ratio, "low": 0.99 * ratio, "high": 1.01 * ratio, "noise_floor": noise_floor}
    return timing.processes[0].model_copy(update=own)


def test_one_process_keeps_its_own_interval():
    timing = pool([process(2.0)])
    assert (timing.ratio, timing.low, timing.high, timing.unstable) == (2.0, 1.98, 2.02, False)


def test_processes_that_agree_have_the_t_interval_of_their_logarithms():
    timing = pool([process(ratio) for ratio in (1.99, 2.0, 2.0, 2.0, 2.01)])
    assert timing.ratio == pytest.approx(2.0, rel=1e-3)
    # standard deviation of the logarithms 0.005 / sqrt(2), over sqrt(5), times t(0.975, 4) = 2.776
    assert (timing.low, timing.high) == pytest.approx((2.0 - 0.00878, 2.0 + 0.00878), abs=1e-4)
    assert not timing.unstable
    assert timing.verdict == "faster"


def test_one_disturbed_process_does_not_set_the_noise_floor_of_all():
    timing = pool([process(2.0), process(2.0), process(2.01, noise_floor=13.0), process(1.99), process(2.0)])
    assert timing.noise_floor == 0.01
    assert timing.verdict == "faster"


def test_processes_that_disagree_are_called_unstable():
    timing = pool([process(ratio) for ratio in (1.6, 2.4, 2.0, 1.7, 2.3)])
    assert timing.unstable
    assert timing.high - timing.low > 0.5


@pytest.mark.parametrize(("width", "half"), [(0.05, 0.05), (0.001, 0.0271)])
def test_seeds_that_were_timed_together_are_no_surer_than_each_of_them(width: float, half: float) -> None:
    ratios = [2.28, 2.30, 2.33]  # a t-interval of 2.7 %
    rows = [{"speedup": r, "speedup_low": r / (1 + width), "speedup_high": r * (1 + width)} for r in ratios]
    ratio, low, high = pooled_speedup(pd.DataFrame(rows))
    assert ratio == pytest.approx(2.303, rel=1e-3)
    assert (ratio / low, high / ratio) == pytest.approx((1 + half, 1 + half), abs=2e-3)
