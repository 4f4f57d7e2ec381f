"""The frame around every CP algorithm: checks and scale on the way in, balance and figures on the way out."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lowrank_bench.decomposition.balance import balance_terms
from lowrank_bench.decomposition.cp_closed_form import closed_form
from lowrank_bench.decomposition.cp_result import CPResult, Degeneracy, cp_degeneracy, cp_tensor
from lowrank_bench.decomposition.matrix import as_float64, is_whole, relative_error
from lowrank_bench.decomposition.mttkrp import Unfolded
from lowrank_bench.errors import InvalidInput, InvalidRanks, InvalidWeights

Iteration = Callable[[Unfolded, float], tuple[list[Tensor], list[float]]]
"""(tensor of norm 1, its norm before) -> rows near it, errors on the way."""


@torch.no_grad()
def decompose(tensor: Tensor, rank: int, iterate: Iteration) -> CPResult:
    """The closed form where there is one, otherwise what `iterate` finds. Raises InvalidRanks and InvalidWeights."""
    rank = checked_rank(rank)
    if tensor.ndim < 2 or tensor.is_complex():
        raise InvalidWeights(
            f"CP needs a real tensor with at least 2 modes, not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    if tensor.is_meta:
        factors = [tensor.new_empty(size, rank, dtype=torch.float64) for size in tensor.shape]
        return CPResult(factors, math.nan, [math.nan], Degeneracy(math.nan, math.nan))
    problem, scale = _normalised(as_float64(tensor, "tensor"))
    exact = closed_form(problem.tensor, rank)
    if exact is not None:
        error = relative_error(cp_tensor(exact), problem.tensor)
        return _result(exact, scale, error, [error])
    rows, history = iterate(problem, scale)
    error = math.sqrt(problem.residual(rows).squared_norm())
    return _result([row.T for row in rows], scale, error, history)


def _normalised(tensor: Tensor) -> tuple[Unfolded, float]:
    """The tensor at Frobenius norm 1, and its norm; zero stays zero."""
    # By the largest entry first: squares of entries below 1e-160 or above 1e150 leave the range of float64.
    largest = max(abs(float(extreme)) for extreme in tensor.aminmax())
    if largest == 0:
        return Unfolded(tensor), 0.0
    problem = Unfolded(tensor, largest)
    return problem, largest * problem.normalise()


def checked_rank(rank: int) -> int:
    """The rank as an int. Raises InvalidRanks."""
    if not is_whole(rank) or operator.index(rank) < 1:
        raise InvalidRanks(f"rank is {rank!r}: a CP rank is an integer above 0")
    return operator.index(rank)


def given_rows(factors: Sequence[Tensor], rank: int, problem: Unfolded, scale: float) -> list[Tensor]:
    """A user's factors as rows that fit the tensor of norm 1. Raises InvalidInput and InvalidWeights."""
    shapes, wanted = [tuple(factor.shape) for factor in factors], [(size, rank) for size in problem.shape]
    if shapes != wanted:
        raise InvalidInput(f"factors have shapes {shapes}, but rank {rank} of a tensor {problem.shape} needs {wanted}")
    share = scale ** (1 / len(factors))
    return [
        as_float64(factor, f"factor {mode}").to(problem.cube.device).T / share for mode, factor in enumerate(factors)
    ]


def _result(factors: list[Tensor], scale: float, error: float, history: list[float]) -> CPResult:
    even = balance_terms(factors)
    share = scale ** (1 / len(factors))
    return CPResult([(factor * share).contiguous() for factor in even], error, history, cp_degeneracy(even))
