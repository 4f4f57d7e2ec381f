"""Error-preserving correction: the same error from terms that do not cancel (Phan et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_problem import given_rows, solution, unit_tensor
from lowrank_bench.decomposition.cp_result import CPResult
from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import even_rows
from lowrank_bench.decomposition.mttkrp import Unfolded, grams, hadamard
from lowrank_bench.errors import InvalidInput


@torch.no_grad()
def cp_epc(
    tensor: Tensor,
    factors: Sequence[Tensor],
    error_bound: float,
    *,
    max_iter: int = 100,
    tol: float = 1e-3,
    max_seconds: float | None = None,
) -> CPResult:
    """Lowers sum_r ||term_r||^2 subject to ||tensor - sum of terms||_F <= error_bound ||tensor||_F, from a fit within that bound.

    One quadratically constrained least-squares problem per mode and sweep (Phan et al. 2020, CPD-EPC). A bound slightly above the fit's error, such as 1.01 of it, leaves
    the room in which cancelling terms shrink. Ends after `max_iter` sweeps, when one lowers the sum by less than `tol` of it, or after
    `max_seconds`. `history` holds the errors. Raises InvalidWeights, and InvalidInput for a bound below the error of `factors`.
    """
    stopping = Stopping.after(max_iter, tol, max_seconds)
    unit, scale = unit_tensor(tensor)
    problem = Unfolded(unit)
    rows = given_rows(factors, factors[0].shape[1], problem, scale)
    return None
    correction = Correction(bound)



class _Constrained:
    """The update of one mode at a time, which knows the squared error that the last one left."""

    def __init__(self, squared_bound: float, squared_error: float) -> None:
        self.squared_bound, self.squared_error = squared_bound, squared_error

    def __call__(self, gram: Tensor, mttkrp: Tensor, rows: Tensor) -> Tensor:
        """The rows V of least sum_r ||term_r||^2 within the bound: (G + mu I) V = M with the mu at which the bound is met.

        In units in which the other modes' vectors have norm 1, so that the sum of squares is ||V||^2; G = Q diag(s) Q^T makes the squared error
        least + sum_i m_i mu^2 / (s_i (s_i + mu)^2), a rising function of mu.
        """
        lengths = gram.diagonal().sqrt()
        lengths = torch.where(lengths == 0, 1.0, lengths)[:, None]
        normal, target, now = gram / lengths / lengths.T, mttkrp / lengths, rows * lengths
        s, q = torch.linalg.eigh(normal)
        s = s.clamp_min(1e-14 * float(s[-1]))
        gradient, target = q.T @ (normal @ now - target), q.T @ target
        least = self.squared_error - float((gradient.square().sum(1) / s).sum())
        weights = target.square().sum(1)

        def squared_error(mu: float) -> float:
            return least + float((weights * mu**2 / (s * (s + mu) ** 2)).sum())
        low, high = 1e-16 * float(s[-1]), 1e16 * float(s[-1])
        for _ in range(60):
            mu = math.sqrt(low * high)
            low, high = (mu, high) if squared_error(mu) <= self.squared_bound else (low, mu)
        self.squared_error = squared_error(low)
        return q @ (target / (s + low)[:, None]) / lengths
