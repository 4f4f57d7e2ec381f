"""What a CP decomposition is, and how healthy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lowrank_bench.decomposition.matrix import TINY
from lowrank_bench.decomposition.mttkrp import grams, hadamard, khatri_rao


@dataclass(frozen=True)
class Degeneracy:
    """Diverging terms that cancel: both numbers grow with it, the first without bound.

    `term_energy` is sum_r ||term_r||^2 / ||W||^2, about 1 when terms hardly overlap; `cosine` is the largest |cosine|
    between two terms.
    """

    term_energy: float
    cosine: float


@dataclass(frozen=True)
class CPResult:
    """W ~ sum_r factors[0][:, r] o factors[1][:, r] o ...: an (n_i, rank) float64 factor per mode, norms spread evenly.

    `error` is ||W - sum of terms||_F / ||W||_F, from the explicit residual; `history` holds the errors of the start and
    after each iteration on the whole tensor.
    """

    factors: list[Tensor]
    error: float
    history: list[float]
    degeneracy: Degeneracy


def cp_tensor(factors: Sequence[Tensor]) -> Tensor:
    """The tensor (n_1, ..., n_N) that (n_i, rank) factors stand for."""
    return (factors[0] @ khatri_rao([factor.T for factor in factors[1:]])).view([len(factor) for factor in factors])


def cp_degeneracy(factors: Sequence[Tensor]) -> Degeneracy:
    """How far the terms of a decomposition of a tensor of Frobenius norm 1 cancel each other (Phan et al. 2020)."""
    terms = hadamard(grams([factor.T for factor in factors]))  # inner products
    lengths = terms.diagonal().clamp_min(0).sqrt()
    cosines = terms / lengths.clamp_min(TINY)[:, None] / lengths.clamp_min(TINY)
    largest = float(cosines.fill_diagonal_(0).abs().max())
    return Degeneracy(float(lengths.square().sum()), min(largest, 1.0))
