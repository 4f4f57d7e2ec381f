"""Memory: the most that this process had, in its whole life or since it was last told to forget."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import psutil

from lowrank_bench.allocator import return_freed_memory

if sys.platform != "win32":
    import resource


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # proc(5)


def forget_peak() -> bool:
    """Let the peak be what this process has now, without its garbage and what the allocator keeps. Only Linux can: else
    False, and nothing is forgotten.
    """
    gc.collect()
    return_freed_memory()
    try:
        CLEAR.write_text(FORGET_PEAK)
    except OSError:
        return False
    return True


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (10^6 bytes), since ``forget_peak`` where that succeeded."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    # of Linux's: ru_maxrss would also hold the peak of the process that started this one
    if STATUS.exists() and (told := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(told[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
