"""Tucker-2: 1x1, core, 1x1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, fillable_pair, grid, grid_of_pairs
from lowrank_bench.decomposition.matrix import cut_errors
from lowrank_bench.decomposition.tucker import tucker2

IMAGE_CHANNELS = 3
"""A layer that reads no more channels sees an image, and its input mode is left whole (Kim et al. 2016). The groups of
ResNeXt have 4.
"""


class Tucker(LayerMethod):
    """Tucker-2 (Kim et al. 2016) by higher-order orthogonal iteration from HOSVD: 1x1 S -> R_in, dh x dw R_in -> R_out,
    1x1 R_out -> T.

    Ranks are (R_out, R_in). S R_in + R_in R_out dh dw + R_out T weights. One-sided where a mode has its full rank, as
    of first layers the input mode always has: that factor is merged into the core. Of a 1x1 kernel and of a linear
    layer it is the SVD, in two factors.
    """

    name, version = "tucker", 3
    linear = True

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, int]]:
        """(R_out, R_in) in the proportion of the full ranks, those that can be filled together."""
        full_out, full_in = min(shape.T, shape.patch), min(shape.S, shape.T * shape.dh * shape.dw)
        if shape.S <= IMAGE_CHANNELS:
            return [(r, full_in) for r in grid(full_out)]
        return [pair for pair in grid_of_pairs(full_out, full_in) if self.feasible(shape, pair) == pair]

    def feasible(self, shape: KernelShape, ranks: tuple[int, ...]) -> tuple[int, int]:
        """R_out maps of the core need R_in dh dw of its inputs', and the other way round. A mode that is left whole has
        no factor on which ranks could be spent in vain.
        """
        output, input_ = ranks
        if output == shape.T or input_ == shape.S:
            return output, input_
        return fillable_pair((output, input_), shape.dh * shape.dw)

    def spread(self, shape: KernelShape, rank: int) -> tuple[int, int]:
        """(R, R); of a first layer the input rank is full."""
        return rank, self.candidates(shape)[-1][1] if shape.S <= IMAGE_CHANNELS else rank

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """HOOI; the factors of both channel modes are orthonormal."""
        T, S, dh, dw = weight.shape
        output, core, input_, *_ = tucker2(weight, (ranks[0], ranks[1]))
        stages = [Factor(core, "hw")]
        if ranks[1] == S or dh * dw == 1:
            stages = [Factor(torch.einsum("oihw,si->oshw", core, input_), "hw")]
        else:
            stages = [Factor(input_.T[:, :, None, None]), *stages]
        if ranks[0] == T:
            last = stages.pop()
            return Chain([*stages, Factor(torch.einsum("to,oihw->tihw", output, last.weight), "hw")])
        return Chain([*stages, Factor(output[:, :, None, None])])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor | None, ...]:
        """(T, S dh dw) and (S, T dh dw); of a first layer the latter is not cut."""
        by_input = None if weight.shape[1] <= IMAGE_CHANNELS else weight.transpose(0, 1).flatten(1)
        return weight.flatten(1), by_input

    def errors(self, weight: Tensor, candidates: Sequence[tuple[int, ...]]) -> Sequence[float] | None:
        """Of a 1x1 kernel, one matrix, its SVD at the smaller rank."""
        if weight[0, 0].numel() > 1:
            return super().errors(weight, candidates)
        return cut_errors([weight.flatten(1)], [(min(ranks),) for ranks in candidates])
