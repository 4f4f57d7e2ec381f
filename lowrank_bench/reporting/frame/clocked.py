"""What a timing says: its ratio and times, and how many pairs its processes timed, what stopped them and how busy the
machine was, of which boards tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import pandas as pd

from lowrank_bench.record import Timing


def timing_columns(timing: Timing, environment: Mapping[str, Any]) -> dict[str, object]:
    """Of one timing: its ratio and the times of both models; pairs of its processes, what stopped them, and the share
    that time stopped; the least and the largest load when a process began, or where that was not recorded when the run
    did.
    """
    pairs = [len(process.dense_cpu_ns) for process in timing.processes]
    reasons = [process.stop_reason for process in timing.processes]
    known = [process.load for process in timing.processes if process.load is not None]
    loads = known or [load for load in [environment.get("load")] if load is not None]
    return {
        "speedup": timing.ratio,
        "speedup_low": timing.low,
        "speedup_high": timing.high,
        "speedup_most": max(process.ratio for process in timing.processes),
        "verdict": timing.verdict,
        "noise_floor": timing.noise_floor,
        "unstable": timing.unstable,
        "dense_ms": timing.dense_ms,
        "compressed_ms": timing.compressed_ms,
        "dense_p90_ms": timing.dense_p90_ms,
        "p90_ms": timing.p90_ms,
        "memory_mb": _memory_mb(timing),
        "runtime_error": max(process.runtime_error for process in timing.processes),
        "convert_s": median(process.convert_seconds[1] for process in timing.processes),
        "runtime_bytes": timing.processes[0].model_bytes[1],
        "pairs_least": min(pairs),
        "pairs": median(pairs),
        "pairs_most": max(pairs),
        "stop_reason": " ".join(sorted(set(reasons))),
        "stopped_by_time": reasons.count("max_seconds") / len(reasons),
        "load_least": min(loads, default=None),
        "load_most": max(loads, default=None),
    }


def _memory_mb(timing: Timing) -> float:
    """Not known where several processes tell the same to the byte: until 2026-11-23 that was their parent's peak."""
    inherited = len(timing.processes) > 1 == len({process.memory_mb for process in timing.processes})
    return math.nan if inherited else timing.memory_mb


def pooled_clock(timed: pd.DataFrame) -> dict[str, Any]:
    """The same columns of several timings together."""
    processes = timed["processes"].astype("float64")
    return {
        "pairs_least": timed["pairs_least"].min(),
        "pairs": timed["pairs"].median(),
        "pairs_most": timed["pairs_most"].max(),
        "stop_reason": " ".join(sorted({reason for text in timed["stop_reason"] for reason in text.split()})),
        "stopped_by_time": (timed["stopped_by_time"] * processes).sum() / processes.sum(),
        "load_least": timed["load_least"].min(),
        "load_most": timed["load_most"].max(),
    }


def clock_facts(records: pd.DataFrame) -> list[tuple[str, str]]:
    """What a board tells of them; nothing where nothing was timed."""
    timed = records[records["speedup"].notna()]
    if timed.empty:
        return []
    pooled = pooled_clock(timed)
    spread = f"{pooled['pairs_least']} to {pooled['pairs_most']}, median {pooled['pairs']:g}"
    lines = [("Pairs in a process", f"{spread}; stopped by time: {100 * pooled['stopped_by_time']:.0f} % of processes")]
    if not pd.isna(pooled["load_most"]):
        load = f"{pooled['load_least']:.1f} to {pooled['load_most']:.1f}, running processes in the mean of a minute"
        lines.append(("Load at the start", load))
    return lines
