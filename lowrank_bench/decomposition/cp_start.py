"""Starting points of CP: singular or random vectors, tried for a few sweeps, on a smaller tensor where that pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_stopping import Stopping
from lowrank_bench.decomposition.cp_sweeps import alternating_least_squares
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded

Solver = Callable[[Unfolded, Rows, Stopping], tuple[list[Tensor], list[float]]]

STARTS = {"auto": ("svd", "random"), "svd": ("svd",), "random": ("random",)}
TRIAL_SWEEPS = 6
# The compressed stage only has to reach the neighbourhood: per mode it may leave out directions with this part of the
# squared norm, and it ends when an iteration gains less than that. On cores larger than this it would save no time.
LOST_ENERGY, CORE_ITERATIONS, CORE_GAIN, CORE_SIZE = 1e-4, 30, 3e-3, 0.3


def start(problem: Unfolded, rank: int, init: str, seed: int, solver: Solver, deadline: float) -> list[Tensor]:
    """Rows near a good fit, from the better of the starts that `init` names.

    Where the core of a truncated HOSVD is much smaller than the tensor, it is decomposed first, as in Tensorlab's cpd.
    """
    bases = [singular_vectors(problem, mode, rank) for mode in range(len(problem.shape))]
    if prod(basis.shape[1] for basis in bases) > CORE_SIZE * prod(problem.shape):
        return _best_trial(problem, bases, rank, init, seed, deadline)
    core = problem.tensor
    for basis in bases:
        core = torch.tensordot(core, basis, dims=([0], [0]))
    small = Unfolded(core)
    if small.squared_norm() <= LOST_ENERGY:  # bases of equal singular values may miss one another
        return _best_trial(problem, bases, rank, init, seed, deadline)
    axes = [torch.eye(n).to(core) for n in small.shape]
    rows = _best_trial(small, axes, rank, init, seed, deadline)
    rows, _ = solver(small, rows, Stopping(CORE_ITERATIONS, CORE_GAIN, deadline))
    return [row @ basis.T for row, basis in zip(rows, bases, strict=True)]


def singular_vectors(problem: Unfolded, mode: int, most: int) -> Tensor:
    """Up to `most` leading left singular vectors of an unfolding, fewer where the rest hold almost no energy."""
    energy, vectors = torch.linalg.eigh(problem.unfolding_gram(mode))  # ascending
    negligible = int((energy.cumsum(0) <= LOST_ENERGY * energy.sum()).sum())
    leading: Tensor = vectors[:, negligible:].flip(1)[:, :most]
    return leading.contiguous()


def _best_trial(
    problem: Unfolded, bases: Sequence[Tensor], rank: int, init: str, seed: int, deadline: float
) -> list[Tensor]:
    """The start that is ahead after a few sweeps of ALS."""
    generator = torch.Generator().manual_seed(seed)
    sweeps = Stopping(TRIAL_SWEEPS, 0, deadline)
    starts = (_first_rows(problem, bases if kind == "svd" else (), rank, generator) for kind in STARTS[init])
    trials = (alternating_least_squares(problem, rows, sweeps) for rows in starts)
    return min(trials, key=lambda trial: trial[1][-1])[0]


def _first_rows(problem: Unfolded, bases: Sequence[Tensor], rank: int, generator: torch.Generator) -> list[Tensor]:
    """Normal vectors of norm about 1; the first ones of a mode are its singular vectors, if given."""
    noise = (torch.randn(rank, n, dtype=torch.float64, generator=generator) / n**0.5 for n in problem.shape)
    rows = [matrix.to(problem.cube.device) for matrix in noise]
    for row, basis in zip(rows, bases, strict=False):
        row[: basis.shape[1]] = basis.T
    return rows
