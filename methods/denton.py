"""Kernels cut into blocks of similar channels: permuted, grouped 1x1, dh x dw, grouped 1x1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lowrank_bench.compression import method
from lowrank_bench.compression.chain import Chain, Factor, KernelShape, Permute, Stage
from lowrank_bench.compression.method import LayerMethod, fillable_pair, grid, grid_of_pairs
from lowrank_bench.decomposition.blocks import double_svd, outer_products, split_blocks
from lowrank_bench.decomposition.clustering import bicluster, monochromatic
from lowrank_bench.decomposition.matrix import TINY, balanced_svd

PROBED_TERMS = 16


class DentonOptions(method.LayerOptions):
    """``variant``: "svd" and "outer" approximate each of the G x H blocks of a bi-clustered kernel, by two SVDs or by a
    sum of outer products; "monochromatic" lets every filter read a colour of its cluster: of a network it cuts the
    first convolution, which reads the image, and no other layer.

    ``in_clusters`` G and ``out_clusters`` H, the number of colours, are wanted at most: clusters are of equal size, so
    that a layer gets the largest divisor of its channels up to them (1 of 3 channels in 2 clusters).
    """

    variant: Literal["svd", "outer", "monochromatic"] = "svd"
    in_clusters: int = Field(2, ge=1)
    out_clusters: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _colours_take_all_inputs(self) -> DentonOptions:
        if self.variant == "monochromatic" and "in_clusters" in self.model_fields_set:
            raise ValueError("in_clusters would do nothing with variant='monochromatic': leave it out")
        return self


class Denton(LayerMethod):
    """Bi-clustering and monochromatic approximations (Denton et al. 2014, sections 3.2 and 3.3); inputs and outputs are
    gathered by cluster.

    Weights: "svd" G H (K1 S/G + K1 K2 dh dw + K2 T/H), of ranks (K2, K1) per block; "outer" G H K (S/G + dh dw + T/H),
    of rank (K,); "monochromatic" K (S C' + T dh dw) for C' colours of rank (K,), 1 in the paper. A linear layer, and a
    1x1 kernel as well, is a matrix, cut by SVD as the paper cuts those: R (S + T).
    """

    name, version = "denton", 2
    linear = True
    Options: ClassVar[type[method.Options]] = DentonOptions
    options: DentonOptions

    @property
    def versions(self) -> dict[str, int]:
        """Its own, and those of the cuts that data weigh, the clusters of colours and the errors of sums of aligned
        ranks, where there are any.
        """
        options, found = self.options, dict(super().versions)
        if options.metric != "frobenius":
            found["weighed_cuts"] = 2
        if options.variant == "monochromatic":
            found["colours"] = 2
        if options.variant == "outer" and options.align > 1:
            found["aligned_sums"] = 2
        return found

    @property
    def first_only(self) -> bool:
        """The monochromatic approximation is made for first layers, whose inputs are colours."""
        return self.options.variant == "monochromatic"

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, ...]]:
        """Exact where a block's ranks are full: (K2, K1) in proportion to the full ranks, (K,), or an SVD's (R,)."""
        t, s, dh, dw = self._block(shape)
        taps = dh * dw
        if shape.dh * shape.dw == 1:
            return [(rank,) for rank in grid(min(shape.T, shape.S))]
        if self.options.variant == "monochromatic":
            return [(rank,) for rank in grid(min(shape.S, t * taps))]
        if self.options.variant == "outer":
            small, middle, _ = sorted((t, s, taps))
            return [(rank,) for rank in grid(small * middle)]
        full_in, full_out = min(s, t * taps), min(t, s * taps)
        return [self.feasible(shape, pair) for pair in grid_of_pairs(full_out, full_in)]

    def feasible(self, shape: KernelShape, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """K2 maps of a block need K1 dh dw of its inputs', and the other way round."""
        if len(ranks) == 1:
            return ranks
        return fillable_pair((ranks[0], ranks[1]), shape.dh * shape.dw)

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """Balanced k-means, then the variant's approximation in every block; norms are spread evenly over the chain."""
        if weight[0, 0].numel() == 1:
            left, right = balanced_svd(weight[:, :, 0, 0], ranks[0])
            return Chain([Factor(right[:, :, None, None], "hw"), Factor(left[:, :, None, None])])
        if self.options.variant == "monochromatic":
            return self._monochromatic(weight, ranks[0])
        inputs, outputs, blocks = self._biclustered(weight)
        h, g, _, s = blocks.shape[:4]
        if self.options.variant == "outer":
            input_, taps, output, _ = outer_products(blocks, ranks[0])
            core = taps.unsqueeze(3)  # (H, G, K, 1, dh, dw)
        else:
            covariance = None if statistics is None else _by_cluster(statistics, inputs, g, weight[0, 0].numel())
            input_, core, output, _ = double_svd(blocks, ranks[1], ranks[0], covariance)
        k1, k2 = input_.shape[2], core.shape[2]
        maps = torch.arange(g * h * k2).reshape(g, h, k2).transpose(0, 1).flatten()  # by in-cluster -> by out-cluster
        stages: list[Stage] = [
            *([Permute(inputs, len(inputs))] if g > 1 else []),
            Factor(input_.transpose(0, 1).reshape(g * h * k1, s, 1, 1), groups=g),
            Factor(core.transpose(0, 1).flatten(0, 2), "hw", groups=g * h * k1 // core.shape[3]),
            *([Permute(maps, len(maps))] if g > 1 and h > 1 else []),
            Factor(output.transpose(1, 2).reshape(len(outputs), g * k2, 1, 1), groups=h),
            *([Permute(outputs.argsort(), len(outputs))] if h > 1 else []),
        ]
        return Chain(stages)

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float]:
        """What the SVDs cut off ("svd": a bound, "monochromatic": exact), or what the first greedy terms leave, and
        then linear in K down to the full rank.
        """
        energy = float(weight.square().sum().clamp(min=TINY))
        if weight[0, 0].numel() == 1:
            tail = _tails(weight.flatten(1)[None, None], energy)
            return [tail[rank] for (rank,) in candidates]
        if self.options.variant == "monochromatic":
            full = candidates[-1][0]
            colours = monochromatic(weight, self._clusters(weight.shape[0]), full, self.seed).colours
            kept = colours.flatten(1).square().sum(1).square().reshape(-1, full).sum(0)  # a colour's norm is sqrt(d)
            return [max(0.0, 1 - float(kept[:rank].sum()) / energy) for (rank,) in candidates]
        blocks = self._biclustered(weight)[2]
        if self.options.variant == "outer":
            full = self.candidates(KernelShape(*weight.shape))[-1][0]  # the last one that is aligned may cut
            probed = max(1, min(PROBED_TERMS, full - 1))  # at the full rank the terms are no longer greedy ones
            input_, taps, output, _ = outer_products(blocks, probed)
            norms = input_.square().sum(-1) * taps.square().sum((-1, -2)) * output.square().sum(-2)
            left = [1.0, *(1 - norms.sum((0, 1)).cumsum(0) / energy).clamp(min=0).tolist()]
            return [left[r] if r <= probed else left[-1] * (full - r) / max(1, full - probed) for (r,) in candidates]
        tails = [_tails(blocks.flatten(3), energy), _tails(blocks.transpose(2, 3).flatten(3), energy)]
        return [sum(tail[min(r, len(tail) - 1)] for tail, r in zip(tails, k, strict=True)) for k in candidates]

    def _monochromatic(self, weight: Tensor, components: int) -> Chain:
        colours, filters, outputs, _ = monochromatic(weight, self._clusters(weight.shape[0]), components, self.seed)
        groups = colours.shape[0] // components
        reorder = [Permute(outputs.argsort(), len(outputs))] if groups > 1 else []
        return Chain([Factor(colours), Factor(filters, "hw", groups=groups), *reorder])

    def _biclustered(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input and output channels by cluster, and the blocks (H, G, T/H, S/G, dh, dw)."""
        t, s = weight.shape[:2]
        g, h = _divisor(s, self.options.in_clusters), self._clusters(t)
        inputs, outputs = bicluster(weight, g, h, self.seed)
        return inputs, outputs, split_blocks(weight[outputs][:, inputs], g, h)

    def _block(self, shape: KernelShape) -> KernelShape:
        s = shape.S // _divisor(shape.S, self.options.in_clusters)
        return KernelShape(shape.T // self._clusters(shape.T), s, shape.dh, shape.dw)

    def _clusters(self, outputs: int) -> int:
        return _divisor(outputs, self.options.out_clusters)


def _by_cluster(statistics: Tensor, inputs: Tensor, clusters: int, taps: int) -> Tensor:
    """(G, n, n), n = S/G dh dw: what the inputs of each cluster have in common with each other."""
    s = len(inputs) // clusters
    paired = statistics.reshape(len(inputs), taps, len(inputs), taps)[inputs][:, :, inputs]
    blocks = paired.reshape(clusters, s * taps, clusters, s * taps)
    return torch.stack([blocks[g, :, g] for g in range(clusters)])


def _divisor(channels: int, wanted: int) -> int:
    return max(count for count in range(1, min(channels, wanted) + 1) if channels % count == 0)


def _tails(matrices: Tensor, energy: float) -> list[float]:
    """Squared singular values of all blocks beyond the first k, over the kernel's energy."""
    squares = torch.linalg.svdvals(matrices).square().sum((0, 1))
    return [*(squares.flip(0).cumsum(0).flip(0) / energy).tolist(), 0.0]
