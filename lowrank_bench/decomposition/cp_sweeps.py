"""CP by alternating least squares, with contractions shared between modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, grams, hadamard


def alternating_least_squares(problem: Unfolded, rows: Rows, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """ALS from `rows`; returns the last rows, and the errors of the start and after every sweep."""
    rows = list(rows)
    history = [math.sqrt(problem.residual(rows).squared_norm)]
    while not stopping.reached(history):
        rows, pivot_mttkrp = problem.sweep(even_rows(rows), least_squares)
        history.append(math.sqrt(problem.squared_error(rows, pivot_mttkrp, hadamard(grams(rows)))[0]))
    return rows, history


def least_squares(gram: Tensor, mttkrp: Tensor, rows: Tensor) -> Tensor:
    """The minimiser over one mode, as a Newton step: what a nearly singular Gram matrix cannot resolve then stays as it was."""
    return rows + inverse_psd(gram) @ (mttkrp - gram @ rows)


def inverse_psd(matrix: Tensor) -> Tensor:
    """The inverse of a positive semi-definite matrix after the least ridge, relative to its trace, that lets Cholesky succeed."""
    ridge = max(1e-14 * float(matrix.diagonal().mean()), 1e-100)
    while True:
        factor, info = torch.linalg.cholesky_ex(matrix + ridge * torch.eye(len(matrix)).to(matrix))
        if not info:
            return torch.cholesky_inverse(factor)
        ridge *= 100


def even_rows(rows: Rows) -> list[Tensor]:
    """The same terms, the norm of each spread evenly over its vectors; a zero vector stays, and its partners keep a scale."""
    norms = torch.stack([torch.linalg.vector_norm(matrix, dim=1) for matrix in rows])
    norms = torch.where(norms == 0, 1.0, norms)
    mean = norms.log().mean(dim=0).exp()
    return [matrix * (mean / norm)[:, None] for matrix, norm in zip(rows, norms, strict=True)]
