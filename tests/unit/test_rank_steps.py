"""Steps of ranks are learnt by timing: on a made-up machine that computes in vectors of 16, 16 is found."""

from __future__ import annotations

import pytest

from lowrank_bench.measurement import rank_steps as module
from lowrank_bench.measurement.rank_steps import STEPS, best_step, rank_steps


@pytest.mark.parametrize("width", [1, 16, 32])
def test_a_machine_of_vectors_is_found_out(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_best", lambda runtime, rank, images: -(-rank // width) * width)
    gains = rank_steps()
    assert best_step(gains) == width
    assert gains[1] == pytest.approx(1)
    assert all(gain >= 1 - 1e-12 for gain in gains.values())


def test_real_times_give_a_gain_for_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NS", 2_000_000)
    gains = rank_steps()
    assert set(gains) == set(STEPS)
    assert gains[1] == pytest.approx(1)
    assert all(0.2 < gain < 5 for gain in gains.values())  # loose, since other tests share the cores
