"""The peak of a process's memory, and forgetting it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from lowrank_bench.measurement import memory, speedup
from lowrank_bench.measurement.memory import forget_peak, peak_memory_mb
from lowrank_bench.running import timing
from lowrank_bench.running.stages import run_trial
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.trial import Measurement, Trial

MB = 1_000_000


def test_a_peak_is_kept_after_the_memory_is_given_back_until_it_is_forgotten():
    forget_peak()
    before = peak_memory_mb()
    assert np.ones(300 * MB, dtype=np.int8).any()
    assert peak_memory_mb() > before + 250
    if sys.platform == "linux":
        assert forget_peak()
        assert peak_memory_mb() < before + 50


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives back what lies below something in use")
def test_what_the_allocator_keeps_of_freed_memory_does_not_count():
    blocks = [np.ones(60_000, dtype=np.int8) for _ in range(5000)]
    held = peak_memory_mb()
    del blocks[:-1]  # the last one keeps the heap from shrinking
    assert forget_peak()
    assert peak_memory_mb() < held - 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child does not begin with its parent's peak")
def test_the_peak_of_whoever_started_a_process_is_not_its_own():
    code = "from lowrank_bench.measurement.memory import peak_memory_mb; print(peak_memory_mb())"
    held = np.ones(1500 * MB, dtype=np.int8)
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert held.any() and float(child.stdout) < 1000 < peak_memory_mb()


def test_every_row_of_a_process_forgets_when_only_its_pairs_are_left(monkeypatch: pytest.MonkeyPatch, tmp_path):
    events: list[str] = []

    def told(module: Any, name: str, event: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **kwargs: events.append(event) or real(*args, **kwargs))

    told(speedup, "prepare", "convert")
    told(speedup, "time_pairs", "time")
    told(timing, "forget_peak", "forget")
    monkeypatch.setattr(timing, "pin_cores", lambda _threads: None)
    model = "lowrank_bench.tasks.layers:alexnet_conv2"
    trials = [
        Trial(task="speed:96x5x5", model=model, method="channel_svd", ranks=rank, recipe="none") for rank in (2, 4)
    ]
    for trial in trials:
        run_trial(trial, tmp_path, Stopwatch(lambda *_: None))
    setting = {"runtime": "eager", "threads": 1, "batch": 1, "precision": 0.5, "max_seconds": 0.2}
    measurement = Measurement(trial=trials[0].key, machine="here", **setting)
    process = timing.TimingProcess(trials[0], measurement, tmp_path, tmp_path, 2)
    for trial in trials:
        process.time(trial, Stopwatch(lambda *_: None))
    assert events == ["convert", "convert", "convert", "time", "forget", "time", "convert", "forget", "time"]


def test_where_the_system_cannot_forget_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    assert not forget_peak()
