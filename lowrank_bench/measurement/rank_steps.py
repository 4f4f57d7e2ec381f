"""Which multiples of ranks this machine likes: times of one factored layer over a window of ranks."""

from __future__ import annotations

from contextlib import suppress
from statistics import fmean

import torch
from torch import nn

from lowrank_bench.errors import ExportFailed
from lowrank_bench.measurement.runtimes import arithmetic_of, available_runtimes, inference_state, prepare
from lowrank_bench.measurement.timing import least_ns

CHANNELS, MAP = 128, 28
# Of the ranks from 65 to 96, one whole turn of the largest step: two that it or a smaller one divides and no larger one
# does, as far below the middle as above it. Each rank is converted, which takes longer than to time it.
SAMPLES = {1: (73, 87), 2: (74, 86), 4: (76, 84), 8: (72, 88), 16: (80,), 32: (96,)}
NS = 100_000_000  # for each rank
ENOUGH = 0.02  # a larger step must bring more than this


def rank_steps(runtime: str) -> dict[int, float]:
    """How many times less time per rank the multiples of each step take than all ranks do, on one thread.

    Of a spatially separable layer, 128 channels on 28x28 maps, for ranks from 65 to 96, by samples: the least time of
    many calls each. Takes 1 s, and ten conversions. Raises what ``prepare`` raises.
    """
    images = torch.randn(1, CHANNELS, MAP, MAP, generator=torch.Generator().manual_seed(0))
    per_rank = {step: fmean(_least(runtime, r, images) / r for r in ranks) for step, ranks in SAMPLES.items()}

    def mean(least: int) -> float:
        steps = [step for step in SAMPLES if step >= least]
        return fmean([per_rank[step] for step in steps], [max(16 // step, 1) for step in steps])

    return {step: mean(1) / mean(step) for step in SAMPLES}


def all_rank_steps() -> dict[str, dict[int, float]]:
    """The same in every runtime that is installed and computes in float32; one that cannot take the layer is left
    out.
    """
    found = {}
    for runtime, missing in available_runtimes().items():
        if missing is None and arithmetic_of(runtime) == "float32":
            with suppress(ExportFailed):
                found[runtime] = rank_steps(runtime)
    return found


def best_step(gains: dict[int, float]) -> int:
    """The smallest step beyond which nothing is gained but noise: what to give as the methods' option ``align``."""
    best = max(gains.values())
    return min(step for step, gain in gains.items() if gain >= best * (1 - ENOUGH))


def _least(runtime: str, rank: int, images: torch.Tensor) -> int:
    layers = nn.Sequential(
        nn.Conv2d(CHANNELS, rank, (3, 1), padding=(1, 0), bias=False), nn.Conv2d(rank, CHANNELS, (1, 3), padding=(0, 1))
    )
    prepared = prepare(runtime, layers, images, 1)
    with inference_state(1):
        return least_ns(prepared.run, duration=NS)
