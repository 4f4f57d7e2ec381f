"""MTTKRPs of a dense tensor by contractions that all modes share.

Factors are kept transposed here, one row of length n_i per term, so that every product below is a plain or batched
matrix product. The tensor is laid out once as (pivot, taps, middle): its largest mode, all smaller modes flattened, its
second largest mode. For a kernel (T, S, dh, dw) with T >= S that is (T, dh dw, S): contracting the pivot is one matrix
product T x S x R per tap, and what remains, (R, taps, middle), serves every other mode by cheap passes. No Khatri-Rao
product of the two channel modes is ever formed.
"""

from __future__ import annotations

import math
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
    """A copy of tensor / divisor in the layout (pivot, taps, middle)."""

    def __init__(self, tensor: Tensor, divisor: float = 1.0) -> None:
        self.shape = tuple(tensor.shape)
        self.pivot, self.middle, *taps = sorted(range(tensor.ndim), key=lambda mode: -self.shape[mode])
        self.taps = sorted(taps)
        ordered = tensor.permute(self.pivot, *self.taps, self.middle)
        cube = torch.div(ordered, divisor, out=tensor.new_empty(ordered.shape))
        self.cube = cube.view(self.shape[self.pivot], -1, self.shape[self.middle])
        self._squared_norm: float | None = None

    def squared_norm(self) -> float:
        """The squared Frobenius norm, computed once."""
        if self._squared_norm is None:
            self._squared_norm = float(torch.linalg.vector_norm(self.cube)) ** 2
        return self._squared_norm

    def normalise(self) -> float:
        """Divide the tensor by its Frobenius norm, which is returned."""
        norm = math.sqrt(self.squared_norm())
        self.cube.div_(norm)
        self._squared_norm = None
        return norm

    @property
    def tensor(self) -> Tensor:
        """The tensor, a view with its modes in their own order."""
        layout = [self.pivot, *self.taps, self.middle]
        return self.cube.view([self.shape[mode] for mode in layout]).permute(
            [layout.index(mode) for mode in range(len(layout))]
        )

    def unfolding_gram(self, mode: int) -> Tensor:
        """The unfolding of one mode times its transpose, (n_i, n_i)."""
        if mode == self.pivot:
            return self.cube.flatten(1) @ self.cube.flatten(1).T
        gram = self.cube.new_zeros(self.shape[mode], self.shape[mode])
        for part in self.tensor.split(64, dim=self.pivot):  # an unfolding is a copy: never of the whole
            unfolding = part.movedim(mode, 0).flatten(1)
            gram.addmm_(unfolding, unfolding.T)
        return gram

    def mttkrps(self, rows: Rows, pivot_mttkrp: Tensor | None = None) -> list[Tensor]:
        """The MTTKRP of every mode, as (R, n_i) rows, from two contractions of the tensor; the pivot's may be given."""
        out = [torch.empty_like(matrix) for matrix in rows]
        for block in self._blocks(len(rows[0])):
            part = [matrix[block] for matrix in rows]
            partial = self._contract_pivot(part, self._workspace(len(part[0])))
            out[self.middle][block] = self._middle_mttkrp(partial, part)
            weights = partial.mul_(part[self.middle][:, None]).sum(dim=2)
            for mode in self.taps:
                out[mode][block] = self._tap_mttkrp(weights, part, mode)
        out[self.pivot] = self.pivot_mttkrp(rows) if pivot_mttkrp is None else pivot_mttkrp
        return out

    def pivot_mttkrp(self, rows: Rows) -> Tensor:
        """That of the pivot alone, (R, n), from one contraction: all that an error needs."""
        out = torch.empty_like(rows[self.pivot])
        for block in self._blocks(len(rows[0])):
            part = [matrix[block] for matrix in rows]
            out[block] = self._khatri_rao(part, self._workspace(len(part[0]))) @ self.cube.flatten(1).T
        return out

    def sweeps(self, rows: Rows, update: Update) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Endless sweeps of new rows, middle, taps, pivot, two contractions each: the rows, and the pivot's MTTKRP.

        Every sweep starts from even norms.
        """
        partial = self._workspace(len(rows[0]))  # one for all sweeps
        while True:
            rows = even_rows(rows)
            gram = grams(rows)

            def renew(mode: int, mttkrp: Tensor, rows: list[Tensor] = rows, gram: Tensor = gram) -> None:
                rows[mode] = update(hadamard(gram, mode), mttkrp, rows[mode])
                gram[mode] = rows[mode] @ rows[mode].T

            renew(self.middle, self._middle_mttkrp(self._contract_pivot(rows, partial), rows))
            weights = partial.mul_(rows[self.middle][:, None]).sum(dim=2)
            for mode in self.taps:
                renew(mode, self._tap_mttkrp(weights, rows, mode))
            pivot_mttkrp = self._khatri_rao(rows, partial) @ self.cube.flatten(1).T
            renew(self.pivot, pivot_mttkrp)
            yield rows, pivot_mttkrp

    def residual(self, rows: Rows) -> Self:
        """The tensor minus the sum of the terms, entry by entry: exact where the formula with Gram matrices cancels."""
        rest = copy(self)
        rest.cube, rest._squared_norm = self.cube.clone(), None
        for block in self._blocks(len(rows[0])):
            part = [matrix[block] for matrix in rows]
            others = self._khatri_rao(part, self._workspace(len(part[0])))
            rest.cube.flatten(1).addmm_(part[self.pivot].T, others, alpha=-1)
        return rest

    def squared_error(self, rows: Rows, pivot_mttkrp: Tensor, model: Tensor) -> tuple[float, Self | None]:
        """||tensor - sum of the terms||^2 from the terms' inner products `model` (R, R), and None.

        Where rounding would leave fewer than 8 digits of that: from the residual, which is returned too.
        """
        norm = self.squared_norm()
        squared = norm - 2 * float((rows[self.pivot] * pivot_mttkrp).sum()) + float(model.sum())
        if squared > 1e-8 * (norm + float(model.abs().sum())):  # the summands' rounding is about 1e-16 of them
            return squared, None
        rest = self.residual(rows)
        return rest.squared_norm(), rest

    def _blocks(self, rank: int) -> Iterator[slice]:
        """Terms to work on together: a partial contraction then holds about a quarter as many numbers as the tensor."""
        size = max(64, len(self.cube) // 4)
        return (slice(start, start + size) for start in range(0, rank, size))

    def _contract_pivot(self, rows: Rows, out: Tensor) -> Tensor:
        """sum_t W[t, p, s] A[r, t]: the (R, taps, middle) partial contraction, written to `out`."""
        torch.mm(rows[self.pivot], self.cube.flatten(1), out=out.view(len(out), -1))
        return out

    def _middle_mttkrp(self, partial: Tensor, rows: Rows) -> Tensor:
        return torch.bmm(self._tap_rows(rows)[:, None], partial)[:, 0]

    def _tap_mttkrp(self, weights: Tensor, rows: Rows, mode: int) -> Tensor:
        """The MTTKRP of one small mode from `weights` (R, taps), in which pivot and middle are contracted."""
        weights = weights.view(-1, *(self.shape[tap] for tap in self.taps))
        for axis in reversed(range(len(self.taps))):
            if self.taps[axis] != mode:
                row = rows[self.taps[axis]]
                along = [-1 if other == axis else 1 for other in range(weights.ndim - 1)]
                weights = (weights * row.view(len(row), *along)).sum(axis + 1)
        return weights

    def _tap_rows(self, rows: Rows) -> Tensor:
        return khatri_rao([torch.ones_like(rows[0][:, :1]), *(rows[mode] for mode in self.taps)])

    def _khatri_rao(self, rows: Rows, out: Tensor) -> Tensor:
        """The Khatri-Rao product of all modes but the pivot, written to `out` and flattened to (R, taps * middle)."""
        return torch.mul(self._tap_rows(rows)[:, :, None], rows[self.middle][:, None, :], out=out).view(len(out), -1)

    def _workspace(self, rank: int) -> Tensor:
        return self.cube.new_empty(rank, *self.cube.shape[1:])


def khatri_rao(rows: Rows) -> Tensor:
    """The term-wise outer product of (R, n_i) rows, flattened to (R, prod n_i)."""
    product = rows[0]
    for matrix in rows[1:]:
        product = (product[:, :, None] * matrix[:, None, :]).flatten(1)
    return product


def grams(rows: Rows) -> Tensor:
    """The Gram matrices U_n^T U_n of all N factors, stacked as (N, R, R)."""
    gram = rows[0].new_empty(len(rows), len(rows[0]), len(rows[0]))
    for matrix, out in zip(rows, gram, strict=True):
        torch.mm(matrix, matrix.T, out=out)
    return gram


def hadamard(gram: Tensor, *without: int) -> Tensor:
    """The elementwise product (R, R) of the Gram matrices of all modes but those named."""
    product = torch.ones_like(gram[0])
    for mode, matrix in enumerate(gram):
        if mode not in without:
            product.mul_(matrix)
    return product


def even_rows(rows: Rows) -> list[Tensor]:
    """The same terms, the norm of each spread evenly over its vectors; a zero one stays, its partners keep theirs."""
    norms = torch.stack([torch.linalg.vector_norm(matrix, dim=1) for matrix in rows])
    norms = torch.where(norms == 0, 1.0, norms)
    mean = norms.log().mean(dim=0).exp()
    return [matrix * (mean / norm)[:, None] for matrix, norm in zip(rows, norms, strict=True)]
