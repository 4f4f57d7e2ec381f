"""Depthwise-separable filters: dh x dw within each input channel, then 1x1 across them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import grid
from lowrank_bench.decomposition.matrix import balanced_svd
from lowrank_bench.decomposition.separable_basis import per_channel_losses
from lowrank_bench.training.from_scratch import StartMethod


class DepthwiseSeparable(StartMethod):
    """Depthwise-separable convolutions (MobileNets, Howard et al. 2017): dh x dw depthwise S -> S M, then 1x1 S M -> T.

    M filters per input channel, one in the paper; S M (dh dw + T) weights. Each channel's (T, dh dw) matrix is cut at
    rank M, optimal in the Frobenius norm; M = min(T, dh dw) is exact. ``start="scratch"`` takes the architecture alone
    and trains it, as the paper does, with one batch norm behind the pair and nothing inside it, where the paper has a
    batch norm and a ReLU behind each of the two.
    """

    name, version = "depthwise_separable", 1

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(M,), up to min(T, dh dw)."""
        return [(rank,) for rank in grid(min(shape.T, shape.dh * shape.dw))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """An SVD for each input channel; both factors carry the same norm."""
        T, S, dh, dw = weight.shape
        (filters,) = ranks
        mixing, spatial = balanced_svd(weight.transpose(0, 1).flatten(2), filters)  # of each (T, dh dw)
        return Chain(
            [
                Factor(spatial.reshape(S * filters, 1, dh, dw), "hw", groups=S),
                Factor(mixing.transpose(0, 1).reshape(T, S * filters, 1, 1)),
            ]
        )

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float]:
        """What the SVDs of all channels cut off."""
        return per_channel_losses(weight, [filters for (filters,) in candidates])
