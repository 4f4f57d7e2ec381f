"""Steps of ranks are learnt by timing: on a made-up machine that computes in vectors of 16, 16 is found."""

from __future__ import annotations

import math

import pytest

from lowrank_bench.errors import ExportFailed
from lowrank_bench.measurement import rank_steps as module
from lowrank_bench.measurement.rank_steps import SAMPLES, all_rank_steps, best_step, rank_steps


@pytest.mark.parametrize("width", [1, 8, 16, 32])
def test_a_machine_of_vectors_is_found_out(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_least", lambda runtime, rank, images: -(-rank // width) * width)
    gains = rank_steps("eager-nhwc")
    assert best_step(gains) == width
    assert gains[1] == pytest.approx(1)
    assert all(gain >= 1 - 1e-12 for gain in gains.values())


def test_real_times_give_a_gain_for_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NS", 2_000_000)
    gains = rank_steps("eager-nhwc")
    assert set(gains) == set(SAMPLES)
    assert gains[1] == pytest.approx(1)
    assert all(0 < gain < math.inf for gain in gains.values())  # how large, other work on these cores may decide


def test_every_float32_runtime_that_is_installed_is_asked_and_one_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def steps(runtime: str) -> dict[int, float]:
        if runtime == "compile":
            raise ExportFailed("no compiler")
        return {1: 1.0}

    installed = dict.fromkeys(["eager", "eager-nhwc", "compile", "openvino", "openvino-bf16", "onnxruntime-int8"])
    monkeypatch.setattr(module, "available_runtimes", lambda: installed | {"onnxruntime": "install it"})
    monkeypatch.setattr(module, "rank_steps", steps)
    assert set(all_rank_steps()) == {"eager", "eager-nhwc", "openvino"}
