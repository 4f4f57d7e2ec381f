"""Separable pairs: dh x 1 and 1 x dw in place of dh x dw (scheme 2 of Jaderberg et al. 2014, Tai et al. 2016)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from lowrank_bench.decomposition.matrix import as_float64, balanced_svd, relative_error
from lowrank_bench.errors import InvalidOptions


class SeparablePair(NamedTuple):
    """Two cross-channel kernels, first and second as they are applied, and the relative error of their product."""

    first: Tensor
    second: Tensor
    error: float


def separable(kernel: Tensor, rank: int, order: Literal["vh", "hv"] = "vh") -> SeparablePair:
    """Globally best pair of separable convolutions, in the closed form of Tai et al. 2016 (problem P1, theorem 1).

    kernel (T, S, dh, dw), K = rank. "vh": vertical (K, S, dh, 1), then horizontal (T, K, 1, dw), K at most
    min(S dh, T dw). "hv": horizontal (K, S, 1, dw), then vertical (T, K, dh, 1), K at most min(S dw, T dh).
    sqrt(D_k) goes to either factor. Raises InvalidRanks, InvalidWeights and InvalidOptions.
    """
    if order not in ("vh", "hv"):
        raise InvalidOptions(f"order is {order!r}, but must be 'vh' (vertical first) or 'hv' (horizontal first)")
    kernel = as_float64(kernel, axes=4)
    if order == "hv":
        mirrored = separable(kernel.mT, rank)
        return SeparablePair(mirrored.first.mT, mirrored.second.mT, mirrored.error)
    t, s, dh, dw = kernel.shape
    # The theorem's bijection: M[(c, i), (n, j)] keeps the norm, and K separable pairs make its matrices of rank K.
    matrix = kernel.permute(1, 2, 0, 3).reshape(s * dh, t * dw)
    left, right = balanced_svd(matrix, rank)
    vertical = left.T.reshape(rank, s, dh, 1)
    horizontal = right.reshape(rank, t, 1, dw).transpose(0, 1)
    return SeparablePair(vertical, horizontal, relative_error(left @ right, matrix))
