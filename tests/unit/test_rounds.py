"""Rounds timed by somebody else: a drift cancels, short calls are looped, and the control sees what is left."""

from __future__ import annotations

from random import Random

import pytest

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.rounds import Rounds, check_rounds


class Machine:
    """A clock that moves when a model is called, slower and slower by ``drift`` per call, and by exponential noise of
    mean ``noise`` times the call's own time.
    """

    def __init__(self, drift: float = 0.0, noise: float = 0.0) -> None:
        self.now, self.pace, self.drift, self.noise = 0.0, 1.0, drift, noise
        self.random = Random(0)

    def model(self, milliseconds: float):
        def call() -> None:
            self.now += milliseconds * 1e6 * self.pace * (1 + self.noise * self.random.expovariate(1))
            self.pace *= 1 + self.drift

        return call

    def clock(self) -> int:
        return round(self.now)


def run(machine: Machine, dense_ms: float, compressed_ms: float, count: int = 30) -> Rounds:
    rounds = Rounds(machine.model(dense_ms), machine.model(compressed_ms), machine.clock)
    for _ in range(count):
        rounds.before()
        rounds.compressed()
        rounds.after()
    return rounds


def test_the_ratio_of_a_steady_machine_is_exact_and_the_control_is_one() -> None:
    rounds = run(Machine(), 30, 10)
    assert rounds.speedup == pytest.approx((3, 3, 3)) and rounds.control == pytest.approx((1, 1, 1))
    assert rounds.dense_ms == pytest.approx(30)
    assert rounds.compressed_calls == 3, "the faster side is repeated until both take equally long"


def test_a_drift_cancels_but_for_its_square_and_shows_in_the_control() -> None:
    rounds = run(Machine(drift=1e-3), 30, 30)
    assert rounds.speedup.ratio == pytest.approx(1, abs=1e-4)
    assert rounds.control.ratio < 0.999


def test_noise_that_only_adds_time_does_not_make_a_model_faster_than_itself() -> None:
    rounds = run(Machine(noise=0.1), 30, 30, count=4000)
    assert rounds.speedup.low < 1 < rounds.speedup.high
    assert rounds.speedup.half_width < 0.01


def test_short_calls_are_looped_to_two_milliseconds() -> None:
    rounds = run(Machine(), 0.1, 0.01)
    assert rounds.compressed_calls * 0.01 >= 2
    assert rounds.speedup.ratio == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize("count", [0, 5, 30.0])
def test_too_few_rounds_have_no_interval(count) -> None:
    with pytest.raises(InvalidInput, match="at least 6"):
        check_rounds(count)
