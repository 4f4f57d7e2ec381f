"""CP by alternating least squares, with contractions shared between modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import FLOOR, Stopping
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, grams, hadamard
from lowrank_bench.errors import Diverged


def alternating_least_squares(problem: Unfolded, rows: Rows, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """ALS from `rows`, one sweep at least; returns the last rows, and the errors of the start and after every sweep.

    A sweep ends with a least-squares mode, after which no fit is worse than none.
    """
    rows, history = list(rows), [_error(problem, rows, problem.pivot_mttkrp(rows))]
    sweeps = problem.sweeps(rows, least_squares)
    while history[-1] >= FLOOR and (len(history) == 1 or not stopping.reached(history)):
        rows, pivot_mttkrp = next(sweeps)
        history.append(_error(problem, rows, pivot_mttkrp))
    return rows, history


def _error(problem: Unfolded, rows: Rows, pivot_mttkrp: Tensor) -> float:
    return math.sqrt(problem.squared_error(rows, pivot_mttkrp, hadamard(grams(rows)))[0])


def least_squares(gram: Tensor, mttkrp: Tensor, rows: Tensor) -> Tensor:
    """The minimiser over one mode, as a Newton step: what a nearly singular Gram matrix cannot tell stays as it was."""
    return rows + inverse_psd(gram) @ (mttkrp - gram @ rows)


def inverse_psd(matrix: Tensor, shift: float = 0.0) -> Tensor:
    """The inverse of a positive semi-definite matrix + shift I, with the least ridge, relative to its trace, that it
    needs.
    """
    ridge = max(1e-12 * (float(matrix.diagonal().mean()) + shift), 1e-100)
    while math.isfinite(ridge):
        shifted = matrix.clone()
        shifted.diagonal().add_(shift + ridge)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not info:
            del shifted
            return torch.cholesky_inverse(factor)
        ridge *= 100
    raise Diverged("a CP factor is no longer finite: start from another seed, or from factors of the tensor's scale")
