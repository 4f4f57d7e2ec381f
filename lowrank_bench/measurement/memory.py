"""Memory: the most that this process ever had, and errors that mean there was not enough."""

from __future__ import annotations

import sys

import psutil
import torch

if sys.platform != "win32":
    import resource

# Of torch's CPU allocator, of oneDNN, and of C++ libraries.
NO_MEMORY = ("can't allocate memory", "could not create a memory object", "bad allocation")


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (10^6 bytes)."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out: Torch's CPU allocator and oneDNN raise a bare RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)
