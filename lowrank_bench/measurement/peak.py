"""What this machine can do at best: arithmetic in a large matrix product, memory traffic in a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lowrank_bench.measurement.runtimes import inference_state

# Large enough that a product is arithmetic only (its operands are used 2048 times), and a copy larger than any cache.
GEMM_SIZE = 2048
COPY_BYTES = 2**28
REPEATS = 7


@dataclass(frozen=True)
class Peak:
    """Floating-point operations (two to a multiply-accumulate) and bytes moved, both in 10^9 per second."""

    gflops: float
    gbytes: float


def peak(threads: int) -> Peak:
    """Measure the float32 peak with so many threads; the best of 7 counts, since a limit is sought. Takes seconds."""
    with inference_state(threads):
        a, b = torch.ones(2, GEMM_SIZE, GEMM_SIZE)
        product = torch.empty_like(a)
        source = torch.ones(COPY_BYTES, dtype=torch.uint8)
        target = torch.empty_like(source)
        gemm_seconds = _best(lambda: torch.mm(a, b, out=product))
        copy_seconds = _best(lambda: target.copy_(source))
    # A copy reads and writes each byte.
    return Peak(2 * GEMM_SIZE**3 / gemm_seconds / 1e9, 2 * COPY_BYTES / copy_seconds / 1e9)


def _best(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
