"""Coordinates of a tensor in which a loss is about as steep in every direction."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lowrank_bench.decomposition.shrinkage import shrinkage

LEAST = 1e-6  # of the mean: what an axis counts at least in any direction


class Whitening:
    """Linear maps to coordinates in which the gradients that it is made from have about unit covariance, and back.

    ``draws``: gradients by a tensor (n_1, ..., n_d). Their covariance, the loss's curvature, is taken as a Kronecker
    product of one matrix (n_i, n_i) for every axis, the second moments of their unfoldings along it (Gupta et al. 2018,
    Shampoo), shrunk as there are few.
    """

    def __init__(self, draws: Iterable[Tensor]) -> None:
        self._roots: list[tuple[int, Tensor, Tensor]] = []
        squares: list[Tensor] = []
        count = values = 0
        for draw in draws:
            unfoldings = [draw.movedim(axis, 0).flatten(1) for axis in range(draw.dim())]
            found = [unfolding @ unfolding.T for unfolding in unfoldings]
            squares = [old + new for old, new in zip(squares, found, strict=True)] if squares else found
            count, values = count + 1, draw.numel()
        energy = float(squares[0].trace()) / count
        self._scale = energy**0.5 or 1.0
        for axis, square in enumerate(squares):
            if (n := len(square)) == 1 or energy == 0:
                continue
            moments = square / (count * energy)  # of trace 1: how the energy lies along this axis
            share, unit = shrinkage(moments, count * values // n)
            lengths, vectors = torch.linalg.eigh((1 - share) * moments + share * unit)
            roots = lengths.clamp(min=LEAST / n).sqrt()
            self._roots.append((axis, vectors * roots @ vectors.T, vectors / roots @ vectors.T))

    def apply(self, tensor: Tensor) -> Tensor:
        """To those coordinates."""
        for axis, root, _ in self._roots:
            tensor = _along(axis, root, tensor)
        return tensor * self._scale

    def undo(self, tensor: Tensor) -> Tensor:
        """Back from them."""
        for axis, _, inverse in self._roots:
            tensor = _along(axis, inverse, tensor)
        return tensor / self._scale


def _along(axis: int, matrix: Tensor, tensor: Tensor) -> Tensor:
    turned: Tensor = torch.tensordot(matrix, tensor, dims=([1], [axis]))
    return turned.movedim(0, axis)
