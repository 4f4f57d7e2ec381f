"""Tucker-2 of a kernel (Kim et al. 2016): smaller bases for its output and input channels, a core between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import (
    as_float64,
    check_count,
    check_rank,
    power_of_two,
    relative_error,
    truncated_svd,
)


class TuckerResult(NamedTuple):
    """Orthonormal output (T, r_out) and input (S, r_in) factors around core (r_out, r_in, dh, dw).

    `history` holds the relative error of the start and after each iteration; `error` is its last entry.
    """

    output: Tensor
    core: Tensor
    input: Tensor
    error: float
    history: list[float]


def tucker2(kernel: Tensor, ranks: tuple[int, int], *, max_iter: int = 50, tol: float = 1e-5) -> TuckerResult:
    """W[t, s, i, j] ~ sum_{p, q} output[t, p] core[p, q, i, j] input[s, q], by HOOI, orthogonal iteration.

    kernel (T, S, dh, dw); ranks (r_out, r_in), at most (min(T, S dh dw), min(S, T dh dw)); a factor of rank T, or S, is
    the identity. Starts at the truncated HOSVD and stops after `max_iter` iterations, or when one lowers the relative
    error by less than `tol`. Raises InvalidRanks and InvalidWeights.
    """
    kernel = as_float64(kernel, axes=4)
    scale = power_of_two(kernel)  # squares of entries beyond 1e150, or below 1e-150, leave float64
    kernel = kernel / scale
    t, s = kernel.shape[:2]
    check_count("Tucker", ranks, 2, "side")
    r_out, r_in = ranks
    check_rank("Tucker's output rank", r_out, min(t, kernel[0].numel()))
    check_rank("Tucker's input rank", r_in, min(s, kernel[:, 0].numel()))
    output, input_ = _hosvd_basis(kernel, r_out), _hosvd_basis(kernel.transpose(0, 1), r_in)
    core, error = _core(kernel, output, input_)
    history = [error]
    two_sided = r_out < t and r_in < s  # a one-sided Tucker-2 is a matrix SVD, which the start has already solved
    while two_sided and not kernel.is_meta and len(history) <= max_iter:
        output = _leading(torch.einsum("tsij,sq->tqij", kernel, input_), r_out)
        input_ = _leading(torch.einsum("tsij,tp->spij", kernel, output), r_in)
        core, error = _core(kernel, output, input_)
        history.append(error)
        if history[-2] - error < tol:
            break
    return TuckerResult(output, core * scale, input_, error, history)


def tucker_kernel(output: Tensor, core: Tensor, input_: Tensor) -> Tensor:
    """The kernel (T, S, dh, dw) that the factors stand for."""
    return torch.einsum("tp,pqij,sq->tsij", output, core, input_)


def _hosvd_basis(kernel: Tensor, rank: int) -> Tensor:
    rows = kernel.shape[0]
    if rank == rows:
        return torch.eye(rows).to(kernel)
    return truncated_svd(kernel.flatten(1), rank)[0]


def _leading(partial: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors of the unfolding of `partial`."""
    unfolding = partial.flatten(1)
    rows, columns = unfolding.shape
    # The Gram matrix is cheap but blind below 1e-8 of the largest singular value; an orthogonal iteration sees again.
    if rank <= columns < rows:  # of the smaller side: a linear layer of thousands of inputs has few columns here
        left, right = torch.linalg.qr(unfolding)
        basis = left @ torch.linalg.eigh(right @ right.T).eigenvectors[:, -rank:]
    else:
        basis = torch.linalg.eigh(unfolding @ unfolding.T).eigenvectors[:, -rank:]
    q: Tensor = torch.linalg.qr(unfolding @ (unfolding.T @ basis)).Q
    return q


def _core(kernel: Tensor, output: Tensor, input_: Tensor) -> tuple[Tensor, float]:
    core = torch.einsum("tsij,tp,sq->pqij", kernel, output, input_)
    return core, relative_error(tucker_kernel(output, core, input_), kernel)
