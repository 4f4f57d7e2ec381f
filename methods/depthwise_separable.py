"""Depthwise-separable filters: dh x dw within each input channel, then 1x1 across them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import Job, LayerMethod, grid
from lowrank_bench.compression.model import Compressed
from lowrank_bench.decomposition.separable_basis import per_channel_losses
from lowrank_bench.errors import UnsupportedLayer
from lowrank_bench.training.from_scratch import StartOptions, compress_from_scratch


class DepthwiseSeparableOptions(method.LayerOptions, StartOptions):
    """``start`` and ``scratch_recipe``: see StartOptions."""

    dense_only: ClassVar[set[str]] = set(method.LayerOptions.model_fields)


class DepthwiseSeparable(LayerMethod):
    """Depthwise-separable convolutions (MobileNets, Howard et al. 2017): dh x dw depthwise S -> S M, then 1x1 S M -> T.

    M filters per input channel, one in the paper; S M (dh dw + T) weights. Each channel's (T, dh dw) matrix is cut at
    rank M, optimal in the Frobenius norm; M = min(T, dh dw) is exact. ``start="scratch"`` takes the architecture alone
    and trains it, as the paper does, with one batch norm behind the pair and nothing inside it, where the paper has a
    batch norm and a ReLU behind each of the two.
    """

    name, version = "depthwise_separable", 1
    Options: ClassVar[type[method.Options]] = DepthwiseSeparableOptions
    options: DepthwiseSeparableOptions

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(M,), up to min(T, dh dw)."""
        return [(rank,) for rank in grid(min(shape.T, shape.dh * shape.dw))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """An SVD for each input channel; both factors carry the same norm. Raises UnsupportedLayer from scratch, which
        is for whole networks.
        """
        if self.options.start == "scratch":
            raise UnsupportedLayer(
                f"{self.name} with start='scratch' trains a whole network: use lowrank_bench.compress"
            )
        return self._chain(weight, ranks[0])

    def structure(self, shape: KernelShape, ranks: tuple[int, ...]) -> Chain:
        """The same chain without values."""
        return self._chain(torch.empty(shape, dtype=torch.float64, device="meta"), ranks[0])

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """By SVD of every layer, or trained from scratch."""
        if self.options.start == "scratch":
            return compress_from_scratch(self, model, job, self.options.scratch_recipe)
        return super().compress(model, job)

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float]:
        """What the SVDs of all channels cut off."""
        return per_channel_losses(weight, [filters for (filters,) in candidates])

    def _chain(self, weight: Tensor, rank: int) -> Chain:
        T, S, dh, dw = weight.shape
        u, s, vh = torch.linalg.svd(weight.transpose(0, 1).flatten(2), full_matrices=False)  # of each (T, dh dw)
        root = s[:, :rank].sqrt()
        filters = (root[:, :, None] * vh[:, :rank]).reshape(S * rank, 1, dh, dw)
        mixing = (u[:, :, :rank] * root[:, None]).transpose(0, 1).reshape(T, S * rank, 1, 1)
        return Chain([Factor(filters, "hw", groups=S), Factor(mixing)])
