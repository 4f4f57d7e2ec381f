"""Starting points of CP: singular or random vectors, tried for a few sweeps, and on a compressed tensor first where
that pays.
"""

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
# The compressed stage only has to reach the neighbourhood: it may leave out directions with this part of the squared
# norm, and ends
# when an iteration gains less than this. It is worth its while on a core of at most half the tensor's size.
LOST_ENERGY, CORE_ITERATIONS, CORE_GAIN, CORE_SIZE = 1e-4, 30, 3e-3, 0.3


def start(problem: Unfolded, rank: int, init: str, seed: int, solver: Solver, deadline: float) -> list[Tensor]:
    """Rows near a good fit: the best of the starts that `init` names, improved on the core of a truncated HOSVD where
    that is smaller.

    Solving the core first is the MLSVD compression of Tensorlab's cpd; the caller refines on the whole tensor.
    """
    bases = [singular_vectors(problem, mode, rank) for mode in range(len(problem.shape))]
    if prod(basis.shape[1] for basis in bases) > CORE_SIZE * prod(problem.shape):
        return _best_trial(problem, bases, rank, init, seed, deadline)
    core = problem.tensor
    for basis in bases:
        core = torch.tensordot(core, basis, dims=([0], [0]))
    small = Unfolded(core)
    axes = [torch.eye(n).to(core) for n in small.shape]
    rows = _best_trial(small, axes, rank, init, seed, deadline)
    rows, _ = solver(small, rows, Stopping(CORE_ITERATIONS, CORE_GAIN, deadline))
    return [row @ basis.T for row, basis in zip(rows, bases, strict=True)]


def singular_vectors(problem: Unfolded, mode: int, most: int) -> Tensor:
    """At most `most` leading left singular vectors of the mode's unfolding, fewer where the others hold almost no
    energy.
    """
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
    trials = (
        alternating_least_squares(
            problem, _first_rows(problem, bases if kind == "svd" else (), rank, generator), sweeps
        )
        for kind in STARTS[init]
    )
    return min(trials, key=lambda trial: trial[1][-1])[0]


def _first_rows(problem: Unfolded, bases: Sequence[Tensor], rank: int, generator: torch.Generator) -> list[Tensor]:
    """Normal vectors of norm about 1; the first ones of a mode are its singular vectors, if given."""
    rows = [
        torch.randn(rank, n, dtype=torch.float64, generator=generator).to(problem.cube) / n**0.5 for n in problem.shape
    ]
    for row, basis in zip(rows, bases, strict=False):
        row[: basis.shape[1]] = basis.T
    return rows
