"""CP by non-linear least squares: damped Gauss-Newton with a matrix-free, preconditioned inner solve (Lebedev et al. 2015, section 3).

The cost is 1/2 ||W - sum of terms||^2. With Gram matrices G_n = U_n^T U_n, W_n = Hadamard_{m != n} G_m and W_nm = Hadamard_{k != n, m} G_k,
    gradient, block n     U_n W_n - MTTKRP_n
    (J^T J) x, block n    X_n W_n + U_n sum_{m != n} W_nm * (X_m^T U_m)
so that a product costs O(sum n_i R^2) and J is never formed (Tensorlab's cpd_nls; Sorber, Van Barel and De Lathauwer 2013). All factors
stand side by side in one (R, sum n_i) matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import even_rows, inverse_psd
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, grams, hadamard

FIRST_DAMPING, LEAST_DAMPING, LAST_DAMPING = 1e-2, 1e-12, 1e16
# While the quadratic model is poor, an inexact inner solve goes further per second: few CG steps first, one more with every iteration.
CG_STEPS, MOST_CG_STEPS, CG_TOLERANCE = 10, 50, 0.03
# A fading ridge keeps terms from diverging early: on 9x9 and 3x3 kernels lower errors in the same time, with a tenth of the term energy.
# It may not exceed this part of the cost, so that it fades quadratically near an exact fit.
RIDGE, FADE, TOO_STRONG = 5e-3, 0.9, 0.3
# Under an error bound the ridge grows until the bound stops it.
FAINT, GROW, BACK_OFF = 3e-5, 1.2, 0.5


def gauss_newton(problem: Unfolded, rows: Rows, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """Levenberg-Marquardt from `rows`; returns the last rows, and the errors of the start and of every accepted step: they only fall."""
    descent = Descent(problem, rows)
    ridge = RIDGE * descent.here.cost
    history = [descent.error]
    while not stopping.reached(history) and descent.damping < LAST_DAMPING:
        outcome = descent.attempt(ridge, limit=descent.here.cost)
        if outcome is Outcome.TAKEN:
            history.append(descent.error)
            ridge = min(FADE * ridge, RIDGE * descent.here.cost)
        elif outcome is Outcome.OVER_LIMIT:
            ridge *= TOO_STRONG
    return descent.here.rows, history


def shrink_terms(problem: Unfolded, rows: Rows, error_bound: float, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """Smaller terms at an error of at most `error_bound`, from a fit within it: the ridge of Phan et al. 2020's surrogate, annealed."""
    descent = Descent(problem, rows)
    ridge = FAINT * descent.here.cost
    history = [descent.error]
    for _ in range(stopping.max_iter):
        if stopping.out_of_time():
            break
        outcome = descent.attempt(ridge, limit=error_bound**2 / 2)
        if outcome is Outcome.TAKEN:
            history.append(descent.error)
            ridge *= GROW
        elif outcome is Outcome.OVER_LIMIT:
            ridge *= BACK_OFF
    return descent.here.rows, history


class Outcome(Enum):
    """What became of a trial step."""

    TAKEN = auto()
    OVER_LIMIT = auto()  # downhill, but only by shrinking the factors at the expense of the fit
    UPHILL = auto()


class Descent:
    """Levenberg-Marquardt steps on cost + ridge / 2 ||factors||^2, from factors whose norms are kept even.

    Nielsen's rule for the damping, as in Tensorlab's nls_lm: with rho = actual / predicted decrease, a step taken multiplies it by
    max(1/3, 1 - (2 rho - 1)^3); each uphill one in a row by 2, 4, 8, ...
    """

    def __init__(self, problem: Unfolded, rows: Rows) -> None:
        self.problem, self.here = problem, Point(problem, even_rows(rows))
        self.damping, self.growth, self.cg_steps = FIRST_DAMPING, 2.0, CG_STEPS

    @property
    def error(self) -> float:
        """||W - sum of terms||."""
        return math.sqrt(2 * self.here.cost)

    def attempt(self, ridge: float, limit: float) -> Outcome:
        """Tries one step and takes it if it leads downhill to a cost below `limit`."""
        step, predicted = damped_step(self.here, ridge, self.damping, self.cg_steps)
        there = Point(self.problem, even_rows(split(self.here.factors + step, self.problem.shape)))
        decrease = self.here.penalised(ridge) - there.penalised(ridge)
        if not decrease > 0:  # NaN is uphill
            self.damping, self.growth = self.damping * self.growth, self.growth * 2
            return Outcome.UPHILL
        if not there.cost < limit:
            return Outcome.OVER_LIMIT
        rho = decrease / predicted
        self.damping, self.growth = max(self.damping * max(1 / 3, 1 - (2 * rho - 1) ** 3), LEAST_DAMPING), 2.0
        self.here, self.cg_steps = there, min(self.cg_steps + 1, MOST_CG_STEPS)
        return Outcome.TAKEN


class Point:
    """Factors with their cost and its gradient."""

    def __init__(self, problem: Unfolded, rows: Rows) -> None:
        self.rows, self.factors, self.gram = rows, torch.cat(list(rows), dim=1), grams(rows)
        mttkrps = problem.mttkrps(rows)
        squared_error, rest = problem.squared_error(rows, mttkrps[problem.pivot], hadamard(self.gram))
        self.cost = squared_error / 2
        if rest is None:
            blocks = [hadamard(self.gram, n) @ rows[n] - mttkrp for n, mttkrp in enumerate(mttkrps)]
        else:
            blocks = [-mttkrp for mttkrp in rest.mttkrps(rows)]
        self.gradient = torch.cat(blocks, dim=1)

    def penalised(self, ridge: float) -> float:
        """The cost plus ridge / 2 times the factors' sum of squares."""
        return self.cost + ridge / 2 * float(self.factors.square().sum())


class NormalMatrix:
    """J^T J at some factors, as products with vectors in the shape of the factors, (R, sum n_i)."""

    def __init__(self, rows: Rows, gram: Tensor) -> None:
        self.rows, self.sizes = rows, [row.shape[1] for row in rows]
        self.blocks = [hadamard(gram, n) for n in range(len(rows))]
        self.pairs = {(n, m): hadamard(gram, n, m) for n in range(len(rows)) for m in range(n)}

    def __matmul__(self, vector: Tensor) -> Tensor:
        parts = split(vector, self.sizes)
        inner = [row @ part.T for row, part in zip(self.rows, parts, strict=True)]
        mixed = [torch.zeros_like(block) for block in self.blocks]
        for (n, m), pair in self.pairs.items():
            mixed[n].addcmul_(pair, inner[m])
            mixed[m].addcmul_(pair, inner[n])
        terms = zip(self.blocks, parts, mixed, self.rows, strict=True)
        return torch.cat([torch.addmm(block @ part, mix, row) for block, part, mix, row in terms], dim=1)

    def block_jacobi(self, shift: float) -> Callable[[Tensor], Tensor]:
        """The inverse of the diagonal blocks of J^T J + shift I; at shift 0, a simultaneous ALS update of all modes."""
        eye = shift * torch.eye(len(self.blocks[0])).to(self.blocks[0])
        inverses = [inverse_psd(block + eye) for block in self.blocks]
        return lambda vector: torch.cat([inverse @ part for inverse, part in zip(inverses, split(vector, self.sizes), strict=True)], dim=1)


def damped_step(point: Point, ridge: float, damping: float, most_steps: int) -> tuple[Tensor, float]:
    """A step p on cost + ridge / 2 ||factors||^2, and the decrease of it that p predicts.

    (J^T J + ridge I + shift I) p ~ -gradient by preconditioned conjugate gradients, the shift relative to the mean diagonal of J^T J.
    """
    normal = NormalMatrix(point.rows, point.gram)
    shift = damping * sum(float(block.diagonal().mean()) for block in normal.blocks) / len(normal.blocks)
    precondition = normal.block_jacobi(ridge + shift)
    gradient = point.gradient + ridge * point.factors
    step, residual = torch.zeros_like(gradient), -gradient
    direction = precondition(residual)
    size = first = float((residual * direction).sum())
    for _ in range(most_steps):
        if size <= CG_TOLERANCE**2 * first:
            break
        product = (normal @ direction).add_(direction, alpha=ridge + shift)
        length = size / float((direction * product).sum())
        step.add_(direction, alpha=length)
        residual.sub_(product, alpha=length)
        conditioned = precondition(residual)
        size, last = float((residual * conditioned).sum()), size
        direction = conditioned.add_(direction, alpha=size / last)
    # -g'p - p'(J^T J + ridge I)p / 2, where (J^T J + ridge I + shift I)p = -g - residual
    return step, 0.5 * float((step * (residual - gradient + shift * step)).sum())


def split(factors: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views (R, n_i) of each mode's columns."""
    return list(factors.split(list(sizes), dim=1))
