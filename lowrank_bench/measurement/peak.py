"""What this machine can do at best: arithmetic in large products and convolutions, memory traffic in a large copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lowrank_bench.measurement.runtimes import inference_state
from lowrank_bench.measurement.timing import least_ns

# Large enough that it is arithmetic only (each operand is used 1024 times), and a copy larger than any cache; short
# enough, some 20 ms, that on a machine with other tenants some of them run undisturbed.
GEMM_SIZE = 1024
COPY_BYTES = 2**27
# A matrix product alone is no limit: on an AMD processor (torch 2.15 with MKL) it reached 51 GFLOP/s on one thread
# where oneDNN's convolution of these channels and maps reached 205.
CHANNELS, MAP = 256, 28
NS = 1_000_000_000


@dataclass(frozen=True)
class Peak:
    """Floating-point operations (two to a multiply-accumulate) and bytes moved, both in 10^9 per second."""

    gflops: float
    gbytes: float


def peak(threads: int) -> Peak:
    """Measure the float32 peak with so many threads; the best of many counts, as a limit is sought. Takes 3 s."""
    with inference_state(threads):
        a, b = torch.ones(2, GEMM_SIZE, GEMM_SIZE, dtype=torch.float32)
        maps = torch.ones(1, CHANNELS, MAP, MAP, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
        kernel = torch.ones(CHANNELS, CHANNELS, 3, 3, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
        source = torch.ones(COPY_BYTES, dtype=torch.uint8)
        product, target = torch.empty_like(a), torch.empty_like(source)
        gflops = max(
            2 * GEMM_SIZE**3 / least_ns(lambda: torch.mm(a, b, out=product), duration=NS),
            2 * 9 * CHANNELS**2 * MAP**2 / least_ns(lambda: F.conv2d(maps, kernel, padding=1), duration=NS),
        )
        copy_ns = least_ns(lambda: target.copy_(source), duration=NS)
    # A copy reads and writes each byte.
    return Peak(gflops, 2 * COPY_BYTES / copy_ns)
