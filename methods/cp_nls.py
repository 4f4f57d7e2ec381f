"""CP of the kernel: 1x1, dh x 1 and 1 x dw depthwise, 1x1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition import cp
from lowrank_bench.decomposition.cp_closed_form import cp_full_rank
from lowrank_bench.decomposition.cp_correction import cp_epc
from lowrank_bench.decomposition.cp_deflation import cp_greedy
from lowrank_bench.decomposition.cp_result import CPResult

PROBES = (2, 16, 128)  # ranks whose error is tried to share a budget: 2 s for all of CharNet
EPC_ROOM = 0.01  # by which error-preserving correction may raise the error (Phan et al. 2020: 0 to 1 %)


class CPOptions(method.LayerOptions):
    """``spatial``: "separable" splits the taps into rows and columns (CP-4), "joint" keeps dh x dw (CP-3).

    ``algorithm``: "nls", all factors at once, "als", one mode at a time, or "greedy", term after term (Denton et al.
    2014). ``epc``: lower the terms' norms after it, at an error 1 % larger at most (Phan et al. 2020). ``max_iter``,
    also of that correction, and ``max_seconds`` for a layer (None: no cap; each of its groups gets an equal share, and
    with ``epc`` each of the two stages half of that) end "nls" and "als"; results under a time cap depend on the
    machine. ``embed_groups``: factor a grouped
    layer as one block-diagonal kernel, with one rank for all groups and dense 1x1 factors, as Lebedev et al. did with
    AlexNet.
    """

    spatial: Literal["separable", "joint"] = "separable"
    algorithm: Literal["nls", "als", "greedy"] = "nls"
    epc: bool = False
    max_iter: int = Field(20, ge=1)
    max_seconds: float | None = Field(None, gt=0)
    embed_groups: bool = False

    @model_validator(mode="after")
    def _greedy_has_no_limits(self) -> CPOptions:
        if self.algorithm == "greedy" and not self.epc and self.model_fields_set & {"max_iter", "max_seconds"}:
            raise ValueError("algorithm 'greedy' ends by itself: leave max_iter and max_seconds out, or set epc=True")
        return self

    @model_validator(mode="after")
    def _importance_needs_weights(self) -> CPOptions:
        if self.embed_groups and self.metric == "mahalanobis":
            raise ValueError("embed_groups adds zeros, to which metric='mahalanobis' gives no weight: leave one out")
        return self


class CPNLS(LayerMethod):
    """CP by non-linear least squares (Lebedev et al. 2015, eq. 3 and 4): 1x1 S -> R, depthwise dh x 1 and 1 x dw, 1x1
    R -> T.

    R (S + dh + dw + T) weights. An axis of one tap needs no factor: a 1x1 kernel is a matrix, cut by SVD. The plan's
    notes hold term_energy and cosine, which grow where terms diverge and cancel. Groups are factored one by one unless
    embedded.
    """

    name, version = "cp_nls", 2
    Options: ClassVar[type[method.Options]] = CPOptions
    options: CPOptions

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(R,), up to the product of all modes but the largest, where a closed form is exact."""
        return [(rank,) for rank in grid(cp_full_rank(self._modes(shape)))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """The chosen algorithm; each term's norm is spread evenly over its factors."""
        shape = KernelShape(*weight.shape)
        result = self._solve(weight.reshape(self._modes(shape)), ranks[0])
        notes = {"term_energy": result.degeneracy.term_energy, "cosine": result.degeneracy.cosine}
        return self._chain(result.factors, shape, notes)

    def of_one_group(self, groups: int) -> Self:
        """With its share of ``max_seconds``, which is a layer's."""
        if (seconds := self.options.max_seconds) is None:
            return self
        return type(self)(
            seed=self.seed, **self.options.model_dump(exclude_unset=True) | {"max_seconds": seconds / groups}
        )

    def structure(self, shape: KernelShape, ranks: tuple[int, ...]) -> Chain:
        """The same chain without solving for it."""
        return self._chain([torch.empty(size, ranks[0], device="meta") for size in self._modes(shape)], shape)

    def target_geometry(self, geometry: Geometry) -> Geometry:
        """One group with ``embed_groups``."""
        return geometry.ungrouped() if self.options.embed_groups else geometry

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(T, S) of a 1x1 kernel, whose CP is its SVD; no other kernel has its CP rank in an unfolding."""
        return (weight.flatten(1),) if weight[0, 0].numel() == 1 else ()

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float] | None:
        """Exact for 1x1 kernels; else by a few ALS sweeps at three ranks, and linear in log(1 + R) between them, from 1
        at rank 0 to 0 at the full rank.
        """
        if (exact := super().errors(weight, candidates)) is not None:
            return exact
        kernel = weight.reshape(self._modes(KernelShape(*weight.shape)))
        full = cp_full_rank(kernel.shape)
        probes = [rank for rank in PROBES if rank < full]
        tried = [cp.cp_als(kernel, rank, init="svd", max_iter=1, seed=self.seed).error ** 2 for rank in probes]
        falling = np.minimum.accumulate([1.0, *tried, 0.0])
        ranks = [rank for (rank,) in candidates]
        return list(map(float, np.interp(np.log1p(ranks), np.log1p([0, *probes, full]), falling)))

    def _modes(self, shape: KernelShape) -> tuple[int, ...]:
        """Sides of the tensor to decompose: T, S, and the taps of every depthwise factor."""
        return shape.T, shape.S, *(rows * columns for _, rows, columns in self._depthwise(shape))

    def _depthwise(self, shape: KernelShape) -> list[tuple[Axes, int, int]]:
        """Axes, rows and columns of the depthwise factors; one tap needs none."""
        factors: list[tuple[Axes, int, int]] = [("h", shape.dh, 1), ("w", 1, shape.dw)]
        if self.options.spatial == "joint":
            factors = [("hw", shape.dh, shape.dw)]
        return [factor for factor in factors if factor[1] * factor[2] > 1]

    def _solve(self, kernel: Tensor, rank: int) -> CPResult:
        options = self.options
        seconds = options.max_seconds
        if options.epc and seconds is not None:
            seconds /= 2
        if options.algorithm == "greedy":
            result = cp_greedy(kernel, rank)
        else:
            solver = cp.cp_nls if options.algorithm == "nls" else cp.cp_als
            result = solver(kernel, rank, max_iter=options.max_iter, max_seconds=seconds, seed=self.seed)
        if not options.epc:
            return result
        # halfway to 1 at most: the bound of a kernel that one term hardly fits must stay below the error of no terms
        bound = min((1 + EPC_ROOM) * result.error, (1 + result.error) / 2)
        return cp_epc(kernel, result, bound, max_iter=options.max_iter, max_seconds=seconds)

    def _chain(self, factors: Sequence[Tensor], shape: KernelShape, notes: dict[str, float] | None = None) -> Chain:
        output, input_, *taps = factors
        rank, depthwise = output.shape[1], self._depthwise(shape)
        spanned = "".join(axes for axes, *_ in depthwise)
        rest: dict[str, Axes] = {"": "hw", "h": "w", "w": "h", "hw": ""}
        stages = [Factor(input_.T[:, :, None, None], rest[spanned])]
        for (axes, rows, columns), factor in zip(depthwise, taps, strict=True):
            stages.append(Factor(factor.T.reshape(rank, 1, rows, columns), axes, groups=rank))
        return Chain([*stages, Factor(output[:, :, None, None])], notes)
