"""Rank of a noisy matrix by empirical variational Bayesian matrix factorisation (EVBMF), globally and analytically."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import as_float64, truncated_svd
from lowrank_bench.errors import InvalidInput

GRID, ZOOMS = 512, 4  # points of a grid, and grids, of which each covers two cells of the one before


class EVBMFResult(NamedTuple):
    """The components that stand out of the noise: u (L, rank), shrunk s (rank,), v (M, rank); the noise's variance.

    Components with a singular value above `threshold` are kept. Rank 0 means that none is: leave the layer dense.
    """

    rank: int
    u: Tensor
    s: Tensor
    v: Tensor
    variance: float
    threshold: float


def evbmf(matrix: Tensor, variance: float | None = None) -> EVBMFResult:
    """Global EVBMF solution of Y = B A^T + noise for a fully observed Y (L, M) (Nakajima et al. 2012, 2013).

    Kim et al. 2016 choose ranks so. `variance` is that of one entry's noise; None takes the minimum of the free energy,
    which has several local ones, on logarithmic grids that close in on it. Scaling Y by c leaves the rank and scales
    the variance by c^2. Raises InvalidWeights, and InvalidInput for a variance that is negative or not finite.
    """
    matrix = as_float64(matrix, "matrix", axes=2)
    if variance is not None and not 0 <= variance < math.inf:
        raise InvalidInput(f"variance is {variance}, but must be a finite number >= 0, or None to estimate it")
    if matrix.shape[0] > matrix.shape[1]:
        result = evbmf(matrix.T, variance)
        return result._replace(u=result.v, v=result.u)
    rows, columns = matrix.shape
    scale = float(matrix.abs().max()) or 1.0
    u, s, vh = truncated_svd(matrix / scale, rows)
    alpha = rows / columns
    tau = critical_tau(alpha)
    edge = (1 + tau) * (1 + alpha / tau)  # x-underbar: a component is kept iff g^2 > M variance edge
    noise = variance / scale**2 if variance is not None else _noise_variance(s.cpu().square() / columns, alpha, edge)
    threshold = math.sqrt(columns * noise * edge)
    kept = s > threshold
    g = s[kept]
    # Shrinkage of the kept singular values; its two roots are real above the threshold.
    a = 1 - (rows + columns) * noise / g.square()
    b = 4 * rows * columns * noise**2 / g.pow(4)
    shrunk = g / 2 * (a + (a.square() - b).sqrt())
    return EVBMFResult(int(kept.sum()), u[:, kept], shrunk * scale, vh[kept].T, noise * scale**2, threshold * scale)


def critical_tau(alpha: float) -> float:
    """The root of Phi(tau) + Phi(tau / alpha) = 0, Phi(z) = log(1 + z) / z - 1/2, for alpha = L / M in (0, 1].

    Nakajima et al. 2013, theorem 2. The usual approximation 2.5129 sqrt(alpha) is exact at alpha = 1 only.
    """

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    from scipy.optimize import brentq  # half a second in every child process that needs no EVBMF

    z = 2.5128624172523393  # the root of Phi, which falls: the sum changes sign between tau = z alpha and tau = z
    return float(brentq(lambda tau: phi(tau) + phi(tau / alpha), alpha * z / 2, 2 * z, xtol=1e-14))


def _noise_variance(energies: Tensor, alpha: float, edge: float) -> float:
    """argmin of the free energy Omega over the variance; `energies` are g_h^2 / M, all L of them, in falling order."""
    rows = len(energies)
    most = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)  # H-bar: at most so many components stand out
    high = float(energies.mean())
    if high == 0:
        return 0.0
    low = max(float(energies[most]) / edge, float(energies[most:].mean()))
    round_off = torch.finfo(torch.float64).eps * rows / alpha  # all the noise of an exact product, in units of g_1
    low, high = math.log(max(low, round_off**2 * float(energies[0]) / edge)), math.log(high)
    for _ in range(ZOOMS):
        grid = torch.linspace(low, high, GRID, dtype=torch.float64)
        best = int(_free_energy(grid.exp(), energies, alpha, edge).argmin())
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
    return math.exp(float(grid[best]))


def _free_energy(variance: Tensor, energies: Tensor, alpha: float, edge: float) -> Tensor:
    """Omega = sum_h psi(g_h^2 / (M variance)) for a vector of variances, without its constant -sum_h log(g_h^2 / M).

    psi(x) = x - log x + [x > edge] (log(tau + 1) + alpha log(tau / alpha + 1) - tau). A g_h = 0 makes that infinite.
    """
    x = energies / variance.unsqueeze(1)
    excess = x.clamp_min(edge) - 1 - alpha
    tau = (excess + (excess.square() - 4 * alpha).sqrt()) / 2
    # tau itself cancels: x - tau is 1 + alpha + alpha / tau, which their difference would lose where x is large
    kept = 1 + alpha + alpha / tau + torch.log1p(tau) + alpha * torch.log1p(tau / alpha)
    return torch.where(x > edge, kept, x).sum(dim=1) + len(energies) * variance.log()
