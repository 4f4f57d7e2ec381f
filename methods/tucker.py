"""Tucker-2: 1x1, core, 1x1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition.tucker import tucker2


class Tucker(LayerMethod):
    """Tucker-2 (Kim et al. 2016) by higher-order orthogonal iteration from HOSVD: 1x1 S -> R_in, dh x dw R_in -> R_out,
    1x1 R_out -> T.

    Ranks are (R_out, R_in). S R_in + R_in R_out dh dw + R_out T weights.
    """

    name, version = "tucker", 1

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int, int]]:
        """(R_out, R_in) in the proportion of the full ranks; one above the other times dh dw is spent in vain."""
        T, S, dh, dw = shape
        full_out, full_in = min(T, S * dh * dw), min(S, T * dh * dw)
        largest = max(full_out, full_in)
        return [(max(1, round(r * full_out / largest)), max(1, round(r * full_in / largest))) for r in grid(largest)]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """HOOI; the factors of both channel modes are orthonormal."""
        output, core, input_, *_ = tucker2(weight, (ranks[0], ranks[1]))
        return Chain([Factor(input_.T[:, :, None, None]), Factor(core, "hw"), Factor(output[:, :, None, None])])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(T, S dh dw) and (S, T dh dw)."""
        return weight.flatten(1), weight.transpose(0, 1).flatten(1)
