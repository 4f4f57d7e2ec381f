"""Spatially separable filters: dh x 1 then 1 x dw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition.separable import separable


class JaderbergOptions(method.Options):
    """``order``: "vh" runs the vertical filters first, "hv" the horizontal ones; their optima differ."""

    order: Literal["vh", "hv"] = "vh"


class Jaderberg(LayerMethod):
    """Separable filters (Jaderberg et al. 2014, scheme 2) at their global optimum (Tai et al. 2016, P1): dh x 1 S -> K,
    then 1 x dw K -> T.

    The (S dh, T dw) unfolding is cut at rank K, optimal in the Frobenius norm. K (S dh + T dw) weights.
    """

    name, version = "jaderberg", 1
    Options: ClassVar[type[method.Options]] = JaderbergOptions
    options: JaderbergOptions

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(K,), up to min(S dh, T dw) vertical first, min(S dw, T dh) horizontal first."""
        T, S, dh, dw = shape
        return [(rank,) for rank in grid(min(S * dh, T * dw) if self.options.order == "vh" else min(S * dw, T * dh))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """Tai's closed form, in the chosen order."""
        first, second, _ = separable(weight, ranks[0], self.options.order)
        axes: tuple[Axes, Axes] = ("h", "w") if self.options.order == "vh" else ("w", "h")
        return Chain([Factor(first, axes[0]), Factor(second, axes[1])])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(S dh, T dw), or its mirror image horizontal first."""
        kernel = weight if self.options.order == "vh" else weight.mT
        return (kernel.permute(1, 2, 0, 3).flatten(0, 1).flatten(1),)
