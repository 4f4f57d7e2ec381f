"""Which multiples of ranks this machine likes: times of one factored layer over a window of ranks."""

from __future__ import annotations

from statistics import fmean

import torch
from torch import nn

from lowrank_bench.measurement.runtimes import inference_state, prepare
from lowrank_bench.measurement.timing import least_ns

CHANNELS, MAP = 128, 28
WINDOW = range(65, 97)  # one whole turn of the largest step
STEPS = (1, 2, 4, 8, 16, 32)
NS = 100_000_000  # for each rank
ENOUGH = 0.02  # a larger step must bring more than this


def rank_steps(runtime: str = "eager-nhwc") -> dict[int, float]:
    """How many times less time per rank the multiples of each step take than all ranks do, on one thread.

    Of a spatially separable layer, 128 channels on 28x28 maps, for ranks from 65 to 96: the least time of many calls
    each. Takes some 5 s. Raises what ``prepare`` raises.
    """
    images = torch.randn(1, CHANNELS, MAP, MAP, generator=torch.Generator().manual_seed(0))
    per_rank = {rank: _best(runtime, rank, images) / rank for rank in WINDOW}
    mean = fmean(per_rank.values())
    return {step: mean / fmean(per_rank[rank] for rank in WINDOW if rank % step == 0) for step in STEPS}


def best_step(gains: dict[int, float]) -> int:
    """The smallest step beyond which nothing is gained but noise: what to give as the methods' option ``align``."""
    best = max(gains.values())
    return min(step for step, gain in gains.items() if gain >= best * (1 - ENOUGH))


def _best(runtime: str, rank: int, images: torch.Tensor) -> int:
    layers = nn.Sequential(
        nn.Conv2d(CHANNELS, rank, (3, 1), padding=(1, 0), bias=False), nn.Conv2d(rank, CHANNELS, (1, 3), padding=(0, 1))
    )
    prepared = prepare(runtime, layers, images, 1)
    with inference_state(1):
        return least_ns(prepared.run, duration=NS)
