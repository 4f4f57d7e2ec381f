"""Error-preserving correction: the same error from terms that do not cancel (Phan et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_gauss_newton import shrink_terms
from lowrank_bench.decomposition.cp_problem import decompose, given_rows
from lowrank_bench.decomposition.cp_result import CPResult
from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, grams, hadamard
from lowrank_bench.errors import InvalidInput

SWEEPS = 20
BISECTIONS = 60
EXACT = 1e-12  # below this relative error, float64 leaves no room to trade


def cp_epc(
    tensor: Tensor,
    decomposition: CPResult | Sequence[Tensor],
    error_bound: float,
    *,
    max_iter: int = 100,
    max_seconds: float | None = None,
) -> CPResult:
    """Error-preserving correction (CPD-EPC, Phan et al. 2020): a smaller sum_r ||term_r||^2 within `error_bound`.

    The bound is on ||tensor - sum of terms||_F / ||tensor||_F. Starts from a result, or (n_i, rank) factors, within
    that bound. A bound slightly above its error, such as 1.01 of it, is the room in which cancelling terms shrink.
    First `max_iter` Gauss-Newton steps under a ridge that grows until the bound stops it, then sweeps that solve the
    constrained problem mode by mode. Closed forms (see `cp_nls`) need no correction and are returned instead: their
    terms are orthogonal. Rounding may carry a sweep past a bound near an exact fit: the last rows within it are kept.
    `history` holds the errors of all of them. Raises InvalidInput for a bound below the error of the start, or
    not in [0, 1), and InvalidWeights.
    """
    stopping = Stopping.after(max_iter, 0, max_seconds)
    if not 0 <= error_bound < 1:
        raise InvalidInput(f"error_bound is {error_bound}: a relative error is at least 0 and below 1")
    factors = decomposition.factors if isinstance(decomposition, CPResult) else decomposition
    rank = factors[0].shape[-1]

    def iterate(problem: Unfolded, scale: float) -> tuple[list[Tensor], list[float]]:
        rows = given_rows(factors, rank, problem, scale)
        error = math.sqrt(problem.residual(rows).squared_norm())
        if error > error_bound * (1 + 1e-9) + EXACT:
            raise InvalidInput(
                f"error_bound is {error_bound}, below {error}, the error of the factors: raise the bound"
            )
        if error_bound < EXACT:
            return rows, [error]
        kept = rows
        shrunk, history = shrink_terms(problem, rows, error_bound, stopping)
        rows = min(rows, shrunk, key=_term_energy)
        constrained = _Constrained(error_bound**2 * (1 - 1e-9), problem.residual(rows).squared_norm())
        if math.sqrt(constrained.squared_error) <= error_bound:
            kept = rows
        for swept, _ in islice(problem.sweeps(rows, constrained), SWEEPS):
            # what the sweeps keep account of drifts by rounding, which near an exact fit is more than all that is left
            history.append(math.sqrt(problem.residual(swept).squared_norm()))
            if history[-1] <= error_bound:
                kept = swept
            if stopping.out_of_time():
                break
        return kept, history

    return decompose(tensor, rank, iterate)


def _term_energy(rows: Rows) -> float:
    return float(hadamard(grams(rows)).diagonal().sum())


class _Constrained:
    """The update of one mode that minimises sum_r ||term_r||^2 within the bound; it keeps the squared error."""

    def __init__(self, squared_bound: float, squared_error: float) -> None:
        self.squared_bound, self.squared_error = squared_bound, squared_error

    def __call__(self, gram: Tensor, mttkrp: Tensor, rows: Tensor) -> Tensor:
        """(G + mu I) V = M at the largest mu within the bound.

        In units in which the other modes' vectors have norm 1, the sum is ||V||^2. With G = Q diag(s) Q^T the squared
        error is `least` + sum_i ||m_i||^2 mu^2 / (s_i (s_i + mu)^2), which rises with mu.
        """
        lengths = gram.diagonal().sqrt()
        lengths = torch.where(lengths == 0, 1.0, lengths)[:, None]
        normal, target, now = gram / lengths / lengths.T, mttkrp / lengths, rows * lengths
        s, q = torch.linalg.eigh(normal)
        s = s.clamp_min(1e-14 * float(s[-1]))
        gradient, target = q.T @ (normal @ now - target), q.T @ target
        least = self.squared_error - float((gradient.square().sum(dim=1) / s).sum())
        weights = target.square().sum(dim=1)

        def squared_error(mu: float) -> float:
            return least + float((weights * mu**2 / (s * (s + mu) ** 2)).sum())

        low, high = 1e-16 * float(s[-1]), 1e16 * float(s[-1])
        for _ in range(BISECTIONS):
            mu = math.sqrt(low * high)
            low, high = (mu, high) if squared_error(mu) <= self.squared_bound else (low, mu)
        self.squared_error = squared_error(low)
        updated: Tensor = q @ (target / (s + low)[:, None]) / lengths
        return updated
