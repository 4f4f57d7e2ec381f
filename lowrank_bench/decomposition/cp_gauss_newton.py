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

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import even_rows, inverse_psd
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded, grams, hadamard

FIRST_DAMPING, LEAST_DAMPING, LAST_DAMPING = 1e-2, 1e-12, 1e16
# While the quadratic model is poor, an inexact inner solve goes further per second: few CG steps first, one more with every iteration.
CG_STEPS, MOST_CG_STEPS, CG_TOLERANCE = 10, 50, 0.03


def gauss_newton(problem: Unfolded, rows: Rows, stopping: Stopping) -> tuple[list[Tensor], list[float]]:
    """Levenberg-Marquardt from `rows`; returns the last rows, and the errors of the start and of every accepted step: they only fall.

    Nielsen's rule, as in Tensorlab's nls_lm: with rho = actual / predicted decrease, an accepted step multiplies the damping by
    max(1/3, 1 - (2 rho - 1)^3); each rejected one in a row multiplies it by 2, 4, 8, ...
    """
    here = Point(problem, even_rows(rows))
    history = [math.sqrt(2 * here.cost)]
    damping, growth = FIRST_DAMPING, 2.0
    while not stopping.reached(history):
        step, predicted = damped_step(here, damping, min(CG_STEPS + len(history), MOST_CG_STEPS))
        there = Point(problem, even_rows(split(here.factors + step, problem.shape)))
        if there.cost < here.cost:
            rho = (here.cost - there.cost) / predicted
            damping, growth = max(damping * max(1 / 3, 1 - (2 * rho - 1) ** 3), LEAST_DAMPING), 2.0
            here = there
            history.append(math.sqrt(2 * here.cost))
        else:
            damping, growth = damping * growth, growth * 2
            if damping > LAST_DAMPING or stopping.out_of_time():
                break
    return split(here.factors, problem.shape), history


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


def damped_step(point: Point, damping: float, most_steps: int) -> tuple[Tensor, float]:
    """A p with (J^T J + shift I) p ~ -gradient, by preconditioned conjugate gradients, and the decrease of the cost that it predicts."""
    normal = NormalMatrix(point.rows, point.gram)
    shift = damping * sum(float(block.diagonal().mean()) for block in normal.blocks) / len(normal.blocks)
    precondition = normal.block_jacobi(shift)
    step, residual = torch.zeros_like(point.factors), -point.gradient
    direction = precondition(residual)
    size = first = float((residual * direction).sum())
    for _ in range(most_steps):
        product = (normal @ direction).add_(direction, alpha=shift)
        length = size / float((direction * product).sum())
        step.add_(direction, alpha=length)
        residual.sub_(product, alpha=length)
        conditioned = precondition(residual)
        size, last = float((residual * conditioned).sum()), size
        if size <= CG_TOLERANCE**2 * first:
            break
        direction = conditioned.add_(direction, alpha=size / last)
    # -g'p - p'(J^T J)p / 2, where (J^T J)p = -g - residual - shift p
    return step, 0.5 * float((step * (residual - point.gradient + shift * step)).sum())


def split(factors: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views (R, n_i) of each mode's columns."""
    return list(factors.split(list(sizes), dim=1))
