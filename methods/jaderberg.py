"""Spatially separable filters: dh x 1 then 1 x dw, across channels or within each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition.separable import separable
from lowrank_bench.decomposition.separable_basis import per_channel_losses, separable_basis


class JaderbergOptions(method.LayerOptions):
    """``order``: "vh" runs the vertical filters first, "hv" the horizontal ones; of scheme 2 their optima differ.

    ``scheme``: 2 filters across channels; 1 makes separable filters of every input channel on its own, and mixes them.
    """

    order: Literal["vh", "hv"] = "vh"
    scheme: Literal[1, 2] = 2


class Jaderberg(LayerMethod):
    """Separable filters (Jaderberg et al. 2014). Scheme 2, dh x 1 S -> K then 1 x dw K -> T, is solved at its global
    optimum (Tai et al. 2016, P1).

    The (S dh, T dw) unfolding is cut at rank K, optimal in the Frobenius norm: of the kernel as it leaves the batch
    norm behind it, which is not Tai's norm unless ``batch_norm = "ignored"``. K (S dh + T dw) weights. Scheme 1 gives
    every input channel M rank-1 filters: dh x 1 and 1 x dw depthwise S -> S M, then 1x1 S M -> T; S M (dh + dw + T)
    weights.
    """

    name, version = "jaderberg", 1
    Options: ClassVar[type[method.Options]] = JaderbergOptions
    options: JaderbergOptions

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(K,), up to min(S dh, T dw) vertical first, min(S dw, T dh) horizontal first; (M,), up to dh dw."""
        T, S, dh, dw = shape
        if self.options.scheme == 1:
            return [(rank,) for rank in grid(dh * dw)]
        return [(rank,) for rank in grid(min(S * dh, T * dw) if self.options.order == "vh" else min(S * dw, T * dh))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """Tai's closed form, or filters found with the annealed nuclear norm of scheme 1, in the chosen order."""
        vertical_first = self.options.order == "vh"
        axes: tuple[Axes, Axes] = ("h", "w") if vertical_first else ("w", "h")
        if self.options.scheme == 2:
            first, second, _ = separable(weight, ranks[0], self.options.order)
            return Chain([Factor(first, axes[0]), Factor(second, axes[1])])
        vertical, horizontal, mixing, *_ = separable_basis(weight, ranks[0])
        first, second = (vertical, horizontal) if vertical_first else (horizontal, vertical)
        channels, filters = weight.shape[1], mixing.shape[1]
        return Chain([Factor(first, axes[0], channels), Factor(second, axes[1], filters), Factor(mixing)])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(S dh, T dw), or its mirror image horizontal first; scheme 1 has none."""
        if self.options.scheme == 1:
            return ()
        kernel = weight if self.options.order == "vh" else weight.mT
        return (kernel.permute(1, 2, 0, 3).flatten(0, 1).flatten(1),)

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float] | None:
        """Of scheme 1 the error of the best M filters per channel that need not be separable, a bound from below."""
        if self.options.scheme == 2:
            return super().errors(weight, candidates)
        return per_channel_losses(weight, [bases for (bases,) in candidates])
