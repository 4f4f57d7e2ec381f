"""MTTKRPs of a dense tensor by contractions that all modes share.

Factors are kept transposed here, one row of length n_i per term, so that every product below is a plain or batched matrix product.
The tensor is laid out once as (pivot, taps, middle): its largest mode, all smaller modes flattened, its second largest mode. For a
kernel (T, S, dh, dw) with T >= S that is (T, dh dw, S): contracting the pivot is one matrix product T x S x R per tap, and what remains,
(R, taps, middle), serves every other mode by cheap passes. No Khatri-Rao product of the two channel modes is ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

Rows = Sequence[Tensor]
"""One (R, n_i) matrix per mode; row r holds the r-th term's vector."""

Update = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(Hadamard product of the other modes' Gram matrices, MTTKRP, rows) of one mode -> its new rows."""


class Unfolded:
    """A tensor in the layout (pivot, taps, middle)."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape = tuple(tensor.shape)
        self.pivot, self.middle, *taps = sorted(range(tensor.ndim), key=lambda mode: -self.shape[mode])
        self.taps = sorted(taps)
        cube = tensor.permute(self.pivot, *self.taps, self.middle).contiguous()
        self.cube = cube.reshape(self.shape[self.pivot], -1, self.shape[self.middle])
        self.squared_norm = float(torch.linalg.vector_norm(self.cube)) ** 2

    @property
    def tensor(self) -> Tensor:
        """The tensor, a view with its modes in their own order."""
        layout = [self.pivot, *self.taps, self.middle]
        return self.cube.view([self.shape[mode] for mode in layout]).permute([layout.index(mode) for mode in range(len(layout))])

    def unfolding_gram(self, mode: int) -> Tensor:
        """The unfolding of one mode times its transpose, (n_i, n_i)."""
        if mode == self.pivot:
            return self.cube.flatten(1) @ self.cube.flatten(1).T
        slices = (part.movedim(mode, 0).flatten(1) for part in self.tensor.split(64, dim=self.pivot))  # never a whole copy
        return torch.stack([part @ part.T for part in slices]).sum(dim=0)

    def mttkrps(self, rows: Rows) -> list[Tensor]:
        """The MTTKRP of every mode, as (R, n_i) rows, from two contractions of the tensor."""
        out = [torch.empty_like(matrix) for matrix in rows]
        for block in self._blocks(len(rows[0])):
            part = [matrix[block] for matrix in rows]
            partial = self._contract_pivot(part)
            out[self.middle][block] = self._middle_mttkrp(partial, part)
            weights = partial.mul_(part[self.middle][:, None]).sum(dim=2)
            for mode in self.taps:
                out[mode][block] = self._tap_mttkrp(weights, part, mode)
            del partial
            out[self.pivot][block] = self._khatri_rao(part) @ self.cube.flatten(1).T
        return out

    def sweep(self, rows: Rows, update: Update) -> tuple[list[Tensor], Tensor]:
        """New rows, mode after mode (middle, taps, pivot), from two contractions of the tensor; and the last, the pivot's, MTTKRP."""
        rows = list(rows)
        gram = grams(rows)

        def renew(mode: int, mttkrp: Tensor) -> None:
            rows[mode] = update(hadamard(gram, mode), mttkrp, rows[mode])
            gram[mode] = rows[mode] @ rows[mode].T

        partial = self._contract_pivot(rows)
        renew(self.middle, self._middle_mttkrp(partial, rows))
        weights = partial.mul_(rows[self.middle][:, None]).sum(dim=2)
        del partial
        for mode in self.taps:
            renew(mode, self._tap_mttkrp(weights, rows, mode))
        mttkrp = self._khatri_rao(rows) @ self.cube.flatten(1).T
        renew(self.pivot, mttkrp)
        return rows, mttkrp

    def residual(self, rows: Rows) -> Self:
        """The tensor minus the sum of the terms, entry by entry: exact where the formula with Gram matrices cancels."""
        rest = copy(self)
        rest.cube = self.cube.clone()
        for block in self._blocks(len(rows[0])):
            part = [matrix[block] for matrix in rows]
            rest.cube.flatten(1).addmm_(part[self.pivot].T, self._khatri_rao(part), alpha=-1)
        rest.squared_norm = float(torch.linalg.vector_norm(rest.cube)) ** 2
        return rest

    def squared_error(self, rows: Rows, pivot_mttkrp: Tensor, model: Tensor) -> tuple[float, Self | None]:
        """||tensor - sum of the terms||^2 from the terms' inner products `model` (R, R), and None.

        Where rounding would leave fewer than 8 digits of that: from the residual, which is returned too.
        """
        squared = self.squared_norm - 2 * float((rows[self.pivot] * pivot_mttkrp).sum()) + float(model.sum())
        if squared > 1e-8 * (self.squared_norm + float(model.abs().sum())):  # the summands' rounding is about 1e-16 of them
            return squared, None
        rest = self.residual(rows)
        return rest.squared_norm, rest

    def _blocks(self, rank: int) -> Iterator[slice]:
        """Terms that are worked on together, so that a partial contraction holds about a quarter as many numbers as the tensor."""
        size = max(64, len(self.cube) // 4)
        return (slice(start, start + size) for start in range(0, rank, size))

    def _contract_pivot(self, rows: Rows) -> Tensor:
        """sum_t W[t, p, s] A[r, t]: the (R, taps, middle) partial contraction."""
        return (rows[self.pivot] @ self.cube.flatten(1)).view(-1, *self.cube.shape[1:])

    def _middle_mttkrp(self, partial: Tensor, rows: Rows) -> Tensor:
        return torch.bmm(self._tap_rows(rows)[:, None], partial)[:, 0]

    def _tap_mttkrp(self, weights: Tensor, rows: Rows, mode: int) -> Tensor:
        """The MTTKRP of one small mode from `weights` (R, taps), in which pivot and middle are contracted."""
        weights = weights.view(-1, *(self.shape[tap] for tap in self.taps))
        for axis in reversed(range(len(self.taps))):
            if self.taps[axis] != mode:
                row = rows[self.taps[axis]]
                weights = (weights * row.view(len(row), *(-1 if a == axis else 1 for a in range(weights.ndim - 1)))).sum(axis + 1)
        return weights

    def _tap_rows(self, rows: Rows) -> Tensor:
        return khatri_rao([torch.ones_like(rows[0][:, :1]), *(rows[mode] for mode in self.taps)])

    def _khatri_rao(self, rows: Rows) -> Tensor:
        return khatri_rao([self._tap_rows(rows), rows[self.middle]])


def khatri_rao(rows: Rows) -> Tensor:
    """The term-wise outer product of (R, n_i) rows, flattened to (R, prod n_i)."""
    product = rows[0]
    for matrix in rows[1:]:
        product = (product[:, :, None] * matrix[:, None, :]).flatten(1)
    return product


def grams(rows: Rows) -> Tensor:
    """The Gram matrices U_n^T U_n of all N factors, stacked as (N, R, R)."""
    return torch.stack([matrix @ matrix.T for matrix in rows])


def hadamard(gram: Tensor, *without: int) -> Tensor:
    """The elementwise product (R, R) of the Gram matrices of all modes but those named."""
    return gram[[mode for mode in range(len(gram)) if mode not in without]].prod(dim=0)
