"""Canonical polyadic (CP) decomposition: a tensor as a sum of rank-1 terms (Lebedev et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lowrank_bench.decomposition.cp_gauss_newton import gauss_newton
from lowrank_bench.decomposition.cp_problem import decompose, given_rows
from lowrank_bench.decomposition.cp_result import CPResult
from lowrank_bench.decomposition.cp_start import STARTS, Solver, start
from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import alternating_least_squares
from lowrank_bench.decomposition.mttkrp import Unfolded
from lowrank_bench.errors import UnknownName

Init = str | Sequence[Tensor]


def cp_nls(
    tensor: Tensor,
    rank: int,
    *,
    init: Init = "auto",
    max_iter: int = 200,
    tol: float = 1e-8,
    max_seconds: float | None = None,
    seed: int = 0,
) -> CPResult:
    """CP by non-linear least squares: min ||tensor - sum of `rank` rank-1 terms||_F (Lebedev et al. 2015, section 3).

    Damped Gauss-Newton on the structured J^T J, stabilised by a ridge that fades, which neither Lebedev et al. nor
    Tensorlab have. `tensor` has any order from 2 and stays as it is; everything runs in
    float64 on its device. Closed forms replace the iteration at rank `cp_full_rank(shape)` and above, which is exact,
    and for matrices. `init` is "svd", "random", "auto" (the better of both after a few ALS sweeps) or (n_i, rank)
    factors; other than factors are first improved on a compressed tensor where that pays. Ends after `max_iter`
    iterations, when one lowers the error by less than `tol` of it, or after `max_seconds`, which is looked at between
    iterations. On meta tensors only shapes are computed. Raises InvalidRanks unless `rank` is an integer above 0,
    InvalidWeights, InvalidInput and UnknownName (for `init`).
    """
    return _decompose(tensor, rank, init, Stopping.after(max_iter, tol, max_seconds), seed, gauss_newton)


def cp_als(
    tensor: Tensor,
    rank: int,
    *,
    init: Init = "auto",
    max_iter: int = 200,
    tol: float = 1e-8,
    max_seconds: float | None = None,
    seed: int = 0,
) -> CPResult:
    """CP by alternating least squares, one mode at a time; arguments, result and errors are those of `cp_nls`."""
    return _decompose(tensor, rank, init, Stopping.after(max_iter, tol, max_seconds), seed, alternating_least_squares)


def _decompose(tensor: Tensor, rank: int, init: Init, stopping: Stopping, seed: int, solver: Solver) -> CPResult:
    if isinstance(init, str | None) and init not in STARTS:
        raise UnknownName("CP start", init, STARTS)

    def iterate(problem: Unfolded, scale: float) -> tuple[list[Tensor], list[float]]:
        if isinstance(init, str):
            rows = start(problem, rank, init, seed, solver, stopping.deadline)
        else:
            rows = given_rows(init, rank, problem, scale)
        return solver(problem, rows, stopping)

    return decompose(tensor, rank, iterate)
