"""Truncated SVD of the output-channel unfolding: dh x dw then 1x1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.method import LayerMethod, grid
from lowrank_bench.decomposition.matrix import balanced_svd, weighted_svd


class ChannelSVD(LayerMethod):
    """Channel SVD (Zhang et al. 2016; "scheme 1" of Idelbayev & Carreira-Perpinan 2020): dh x dw S -> R, then 1x1
    R -> T.

    The unfolding (T, S dh dw) is cut at rank R, optimal in the Frobenius norm (Eckart-Young) of the kernel as it leaves
    the batch norm behind it, or enters it with ``batch_norm = "ignored"``; or with Zhang's data term for the layer's
    responses, ``metric = "covariance"``. R (S dh dw + T) weights.
    """

    name, version = "channel_svd", 1
    linear = True

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        """(R,), up to min(T, S dh dw)."""
        return [(rank,) for rank in grid(min(shape.T, shape.S * shape.dh * shape.dw))]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        """U sqrt(s) as the 1x1, sqrt(s) Vh as the dh x dw filters: both carry the same norm into fine-tuning. With
        ``statistics`` the responses' optimum (Denton et al. 2014; Zhang et al. 2016, eq. 4), likewise balanced.
        """
        matrix = weight.flatten(1)
        if statistics is not None:
            matrix = torch.linalg.multi_dot(weighted_svd(matrix, statistics, ranks[0]))
        left, right = balanced_svd(matrix, ranks[0])
        return Chain([Factor(right.reshape(-1, *weight.shape[1:]), "hw"), Factor(left[:, :, None, None])])

    def unfoldings(self, weight: Tensor) -> tuple[Tensor, ...]:
        """(T, S dh dw)."""
        return (weight.flatten(1),)
