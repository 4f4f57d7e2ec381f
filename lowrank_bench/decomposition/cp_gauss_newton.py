"""CP by non-linear least squares (Lebedev et al. 2015, section 3): damped Gauss-Newton, its linear systems matrix-free.

The cost is 1/2 ||W - sum of terms||^2. With the Gram matrices G_n = U_n^T U_n and the Hadamard products
W_n of all G_m, m != n, and W_nm of all G_k, k != n, m:
    gradient, block n     U_n W_n - MTTKRP_n
    (J^T J) x, block n    X_n W_n + U_n sum_{m != n} W_nm * (X_m^T U_m)
so that a product costs O(sum n_i R^2) and J is never formed (Tensorlab's cpd_nls; Sorber, Van Barel and De Lathauwer
2013). All factors stand side by side in one (R, sum n_i) matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import cached_property

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import inverse_psd
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, even_rows, grams, hadamard

FIRST_DAMPING, LEAST_DAMPING, LAST_DAMPING = 1e-2, 1e-12, 1e16
# While the quadratic model is poor, an inexact inner solve goes further per second: few CG steps first, one more with
# every iteration.
CG_STEPS, MOST_CG_STEPS, CG_TOLERANCE = 10, 50, 0.03
# A fading ridge keeps terms from diverging early: on 9x9 and 3x3 kernels that means lower errors in the same time, with
# a tenth of the term energy. It may not exceed this part of the cost: near an exact fit it fades with the fit's square.
RIDGE, FADE, TOO_STRONG = 5e-3, 0.9, 0.3
# Under an error bound the ridge grows until the bound stops it.
FAINT, GROW, BACK_OFF = 3e-5, 1.2, 0.5


def gauss_newton(problem: Unfolded, rows: Rows, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """Levenberg-Marquardt from `rows`; gives the last rows, and the falling errors of the start and each step taken."""
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


def shrink_terms(
    problem: Unfolded, rows: Rows, error_bound: float, stopping: Stopping
) -> tuple[list[Tensor], list[float]]:
    """Smaller terms within `error_bound`, from a fit within it: Phan et al. 2020's ridge on even factors, annealed."""
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

    Nielsen's rule for the damping, as in Tensorlab's nls_lm: with rho = actual / predicted decrease, a step taken
    multiplies it by max(1/3, 1 - (2 rho - 1)^3); each uphill one in a row by 2, 4, 8, ...
    """

    def __init__(self, problem: Unfolded, rows: Rows) -> None:
        self.problem, self.here = problem, Point(problem, torch.cat(even_rows(rows), dim=1))
        self.damping, self.growth, self.cg_steps = FIRST_DAMPING, 2.0, CG_STEPS

    @property
    def error(self) -> float:
        """||W - sum of terms||."""
        return math.sqrt(2 * self.here.cost)

    def attempt(self, ridge: float, limit: float) -> Outcome:
        """Tries one step and takes it if it leads downhill to a cost below `limit`."""
        step, predicted = damped_step(self.here, ridge, self.damping, self.cg_steps)
        moved = torch.cat(even_rows(split(step.add_(self.here.factors), self.problem.shape)), dim=1)
        del step  # a third of the factors' memory at the peak
        there = Point(self.problem, moved)
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
    """Factors with their cost; the gradient of it is computed where it is asked for, of steps that are taken."""

    def __init__(self, problem: Unfolded, factors: Tensor) -> None:
        self.factors, self.rows = factors, split(factors, problem.shape)
        self.gram, pivot_mttkrp = grams(self.rows), problem.pivot_mttkrp(self.rows)
        squared_error, rest = problem.squared_error(self.rows, pivot_mttkrp, hadamard(self.gram))
        self.cost = squared_error / 2
        self._known = (problem, pivot_mttkrp) if rest is None else (rest, None)

    @cached_property
    def gradient(self) -> Tensor:
        """Of the cost, in the shape of the factors."""
        problem, pivot_mttkrp = self._known
        mttkrps = problem.mttkrps(self.rows, pivot_mttkrp)
        del self._known  # near an exact fit it holds a tensor
        if pivot_mttkrp is None:
            return torch.cat([-mttkrp for mttkrp in mttkrps], dim=1)
        return torch.cat([hadamard(self.gram, n) @ self.rows[n] - m for n, m in enumerate(mttkrps)], dim=1)

    def penalised(self, ridge: float) -> float:
        """The cost plus ridge / 2 times the factors' sum of squares."""
        return self.cost + ridge / 2 * float(self.factors.square().sum())

    def normal_product(self, vector: Tensor) -> Tensor:
        """(J^T J) vector, in the shape of the factors."""
        sizes = [row.shape[1] for row in self.rows]
        parts, product = split(vector, sizes), torch.empty_like(vector)
        inner = [row @ part.T for row, part in zip(self.rows, parts, strict=True)]
        for n, out in enumerate(split(product, sizes)):
            first, *rest = (m for m in range(len(sizes)) if m != n)
            # W_n, and by the product rule its derivative sum_m W_nm * (X_m^T U_m)
            block, mixed = self.gram[first], inner[first]
            for m in rest:
                block, mixed = block * self.gram[m], (mixed * self.gram[m]).addcmul_(block, inner[m])
            out.addmm_(block, parts[n], beta=0).addmm_(mixed, self.rows[n])
        return product

    def block_jacobi(self, shift: float) -> Callable[[Tensor], Tensor]:
        """The inverse of the diagonal blocks of J^T J + shift I; at shift 0, a simultaneous ALS update of all modes."""
        inverses = [inverse_psd(hadamard(self.gram, n), shift) for n in range(len(self.rows))]
        sizes = [row.shape[1] for row in self.rows]

        def precondition(vector: Tensor) -> Tensor:
            out = torch.empty_like(vector)
            for inverse, part, place in zip(inverses, split(vector, sizes), split(out, sizes), strict=True):
                place.addmm_(inverse, part, beta=0)
            return out

        return precondition


def damped_step(point: Point, ridge: float, damping: float, most_steps: int) -> tuple[Tensor, float]:
    """A step p on cost + ridge / 2 ||factors||^2, and the decrease of it that p predicts.

    (J^T J + ridge I + shift I) p ~ -gradient by preconditioned conjugate gradients, the shift relative to the mean
    diagonal of J^T J.
    """
    squares = point.gram.diagonal(dim1=1, dim2=2)
    shift = damping * float(torch.stack([hadamard(squares, n) for n in range(len(squares))]).mean())
    precondition = point.block_jacobi(ridge + shift)
    step, residual = torch.zeros_like(point.factors), point.gradient.neg().sub_(point.factors, alpha=ridge)
    direction = precondition(residual)
    size = first = float((residual * direction).sum())
    gain = 0.0
    for _ in range(most_steps):
        if size <= CG_TOLERANCE**2 * first:
            break
        product = point.normal_product(direction).add_(direction, alpha=ridge + shift)
        length = size / float((direction * product).sum())
        gain += length * size / 2
        step.add_(direction, alpha=length)
        residual.sub_(product, alpha=length)
        del product
        conditioned = precondition(residual)
        size, last = float((residual * conditioned).sum()), size
        direction = conditioned.add_(direction, alpha=size / last)
    # CG has lowered the damped model by `gain`; without the damping's own term the model falls by more.
    return step, gain + shift / 2 * float(step.square().sum())


def split(factors: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views (R, n_i) of each mode's columns."""
    return list(factors.split(list(sizes), dim=1))
