"""The limit of a layer on a machine: what its arithmetic and its memory traffic take at the measured peak."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lowrank_bench.compression.modules import Factored
from lowrank_bench.measurement.peak import Peak


@dataclass(frozen=True)
class Work:
    """MACs of one call, and the bytes that it moves at least: every input, weight and output once."""

    macs: int
    bytes: int

    def mac_ms(self, peak: Peak) -> float:
        """The MAC bound: milliseconds that the arithmetic takes at the measured peak."""
        return 2 * self.macs / peak.gflops / 1e6

    def traffic_ms(self, peak: Peak) -> float:
        """The memory-traffic bound: milliseconds that the bytes take at the measured bandwidth."""
        return self.bytes / peak.gbytes / 1e6

    def limit_ms(self, peak: Peak) -> float:
        """The larger of the two bounds, as the roofline has it (Williams, Waterman and Patterson 2009)."""
        return max(self.mac_ms(peak), self.traffic_ms(peak))


def work_of(layer: nn.Module, images: Tensor) -> list[Work]:
    """Work of each stage of a layer on an input (N, ...): one for a dense layer, one per stage for a factored one.

    MACs are those of convolutions and matrix products, as PyTorch's own counter sees them (its count / 2). What a stage
    leaves in a cache for the next counts as moved, so a runtime that fuses stages can beat the traffic bound, and so
    can maps that fit into the caches.
    """
    works = []
    with torch.inference_mode():
        for stage in layer if isinstance(layer, Factored) else [layer]:
            with FlopCounterMode(display=False) as counter:
                output = stage(images)
            moved = (images, output, *stage.parameters(), *stage.buffers())
            works.append(Work(counter.get_total_flops() // 2, sum(t.numel() * t.element_size() for t in moved)))
            images = output
    return works
