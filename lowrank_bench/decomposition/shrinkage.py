"""How much of a covariance matrix of few samples to take from a multiple of the unit matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def shrinkage(moments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The share (..., 1, 1) of the unit matrix times the mean of the diagonal, (..., n, n), that comes second, which is
    to replace as much of the moments (..., n, n) of ``count`` samples: the oracle approximating shrinkage (Chen et al.
    2010, eq. 23). Of moments that are all zero everything, by the unit matrix: every direction counts alike there.
    """
    n = moments.shape[-1]
    trace = moments.diagonal(dim1=-2, dim2=-1).sum(-1)
    square = moments.square().sum((-2, -1))
    share = ((1 - 2 / n) * square + trace.square()) / ((count + 1 - 2 / n) * (square - trace.square() / n))
    share = share.nan_to_num(nan=1.0, posinf=1.0).clamp(0, 1)[..., None, None]
    return share, torch.eye(n, dtype=moments.dtype) * torch.where(trace > 0, trace / n, 1.0)[..., None, None]
