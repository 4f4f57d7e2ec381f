"""CP where no iteration is needed: full rank, matrices, zero."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import truncated_svd


def cp_full_rank(shape: Sequence[int]) -> int:
    """A rank at which every tensor of this shape has an exact CP: the product of all its modes but the largest.

    For a kernel (T, S, dh, dw) whose channels are the larger modes that is dh dw min(S, T), one term per row or column
    of every tap.
    """
    return prod(shape) // max(shape)


def closed_form(tensor: Tensor, rank: int) -> list[Tensor] | None:
    """The best (n_i, rank) factors where mathematics has them: exact ones at full rank, a matrix's SVD; otherwise None.

    Modes of size 1 do not count: a 1x1 kernel is a matrix. Surplus columns, above the full rank, are zero.
    """
    shape = tensor.shape
    long_modes = [mode for mode, size in enumerate(shape) if size > 1]
    if rank >= cp_full_rank(shape):
        factors = _fibres(tensor)
    elif len(long_modes) == 2:
        u, s, vh = truncated_svd(tensor.squeeze(), rank)
        factors = [torch.ones(1, rank).to(tensor) for _ in shape]
        factors[long_modes[0]], factors[long_modes[1]] = u * s, vh.T
    elif not tensor.any():
        factors = [torch.zeros(size, rank).to(tensor) for size in shape]
    else:
        return None
    return [torch.nn.functional.pad(factor, (0, rank - factor.shape[1])) for factor in factors]


def _fibres(tensor: Tensor) -> list[Tensor]:
    """One term per fibre of the largest mode, its other vectors unit vectors: exact, since nothing is computed."""
    shape = tensor.shape
    largest = max(range(tensor.ndim), key=lambda mode: shape[mode])
    others = [mode for mode in range(tensor.ndim) if mode != largest]
    position = np.unravel_index(np.arange(cp_full_rank(shape)), [shape[mode] for mode in others])
    factors = [tensor.movedim(largest, 0).flatten(1)] * tensor.ndim
    for mode, index in zip(others, position, strict=True):
        factors[mode] = torch.eye(shape[mode])[:, torch.from_numpy(index)].to(tensor)
    return factors
