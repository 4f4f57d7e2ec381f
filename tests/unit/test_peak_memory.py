"""The peak of a process's memory, and forgetting it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lowrank_bench.measurement import memory
from lowrank_bench.measurement.memory import forget_peak, peak_memory_mb

MB = 1_000_000


def test_a_peak_is_kept_after_the_memory_is_given_back_until_it_is_forgotten():
    forget_peak()
    before = peak_memory_mb()
    assert np.ones(300 * MB, dtype=np.int8).any()
    assert peak_memory_mb() > before + 250
    if sys.platform == "linux":
        assert forget_peak()
        assert peak_memory_mb() < before + 50


def test_where_the_system_cannot_forget_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    assert not forget_peak()
