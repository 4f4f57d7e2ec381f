"""Tensor trains by TT-SVD (Oseledets 2011), and the naive train of a kernel. A core is (r_k-1, n_k, r_k)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lowrank_bench.decomposition.balance import balance_factors
from lowrank_bench.decomposition.matrix import as_float64, check_count, check_rank, truncated_svd


def tt_svd(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """Cores (r_k-1, n_k, r_k), r_0 = r_d = 1, of the given inner ranks.

    One truncated SVD after another (Oseledets 2011, algorithm 1): the squared error is at most the sum of the squared
    tails of the unfoldings, and zero at `tt_full_ranks`. The cores have equal norms. Raises InvalidWeights, and
    InvalidRanks for ranks that no SVD can fill.
    """
    tensor = as_float64(tensor, "tensor")
    dims = tuple(tensor.shape)
    check_count("TT", ranks, len(dims) - 1, f"cut of shape {dims}")
    cores: list[Tensor] = []
    rest, rank = tensor, 1
    for cut, size in enumerate(dims[:-1]):
        unfolding = rest.reshape(rank * size, -1)
        rank = ranks[cut]
        check_rank(f"TT rank {cut + 1} of {tuple(ranks)}", rank, min(unfolding.shape))
        u, s, vh = truncated_svd(unfolding, rank)
        cores.append(u.reshape(-1, size, rank))
        rest = s.unsqueeze(1) * vh
    return balance_factors([*cores, rest.reshape(rank, dims[-1], 1)])


def tt_full_ranks(dims: Sequence[int]) -> tuple[int, ...]:
    """The largest useful rank at each cut: the smaller side of its unfolding. A train of these ranks is exact."""
    return tuple(min(math.prod(dims[:cut]), math.prod(dims[cut:])) for cut in range(1, len(dims)))


def tt_kernel(kernel: Tensor, ranks: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Naive TT of a kernel (T, S, dh, dw) in the mode order (S, dh, dw, T): four kernels, as they are applied.

    ranks (r1, r2, r3) -> 1x1 (r1, S, 1, 1), vertical (r2, r1, dh, 1), horizontal (r3, r2, 1, dw), 1x1 (T, r3, 1, 1).
    Raises InvalidRanks and InvalidWeights.
    """
    input_, rows, columns, output = tt_svd(kernel.permute(1, 2, 3, 0), ranks)
    return (
        input_.permute(2, 1, 0).unsqueeze(3),
        rows.permute(2, 0, 1).unsqueeze(3),
        columns.permute(2, 0, 1).unsqueeze(2),
        output.permute(1, 0, 2).unsqueeze(3),
    )


def tt_kernel_shapes(shape: Sequence[int], ranks: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the four kernels of tt_kernel for a kernel of ``shape`` (T, S, dh, dw); the ranks may exceed what
    TT-SVD can fill. Raises InvalidRanks.
    """
    check_count("TT", ranks, 3, "cut of a kernel of four axes")
    (t, s, dh, dw), (r1, r2, r3) = shape, ranks
    return [(r1, s, 1, 1), (r2, r1, dh, 1), (r3, r2, 1, dw), (t, r3, 1, 1)]
