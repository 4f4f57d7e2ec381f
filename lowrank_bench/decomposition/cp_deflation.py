"""CP term after term, as in Denton et al. 2014."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_problem import decompose
from lowrank_bench.decomposition.cp_result import CPResult
from lowrank_bench.decomposition.matrix import TINY
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded
from lowrank_bench.errors import InvalidInput

PRECISION = 1e-10  # a term's norm that grows by less than this part in a sweep has settled


def cp_greedy(tensor: Tensor, rank: int, *, max_sweeps: int = 64) -> CPResult:
    """CP by deflation: fit one rank-1 term to what is left, subtract it, `rank` times (Denton et al. 2014).

    A term starts from the mean of each unfolding and is fitted by at most `max_sweeps` alternating power updates (64 in
    the paper's release). Later terms never repair earlier ones: for tensors that costs accuracy, for matrices nothing.
    `history` holds the errors after 0, 1, ... terms; closed forms, result and errors are those of `cp_nls`.
    """
    if max_sweeps < 1:
        raise InvalidInput(f"max_sweeps is {max_sweeps}: a term needs at least one sweep")
    return decompose(tensor, rank, lambda problem, _: _deflate(problem, rank, max_sweeps))


def _deflate(problem: Unfolded, rank: int, max_sweeps: int) -> tuple[list[Tensor], list[float]]:
    rest, history, terms = problem, [1.0], []
    for _ in range(rank):
        term = _rank_one(rest, _means(rest), max_sweeps) or _rank_one(rest, _largest_entry(rest), max_sweeps)
        if term is None:  # nothing is left
            term = [problem.cube.new_zeros(1, size) for size in problem.shape]
        rest = rest.residual(term)
        terms.append(term)
        history.append(math.sqrt(rest.squared_norm()))
    return [torch.cat(vectors) for vectors in zip(*terms, strict=True)], history


def _rank_one(problem: Unfolded, start: Rows, max_sweeps: int) -> Rows | None:
    """Every vector in turn is replaced by the tensor contracted with the others; None if that makes them vanish."""
    rows, norm = start, 0.0
    for swept, pivot_mttkrp in islice(problem.sweeps(start, lambda _gram, mttkrp, _row: _unit(mttkrp)), max_sweeps):
        rows, norm, last = swept, float(torch.linalg.vector_norm(pivot_mttkrp)), norm
        if norm - last <= PRECISION * norm:
            break
    return [pivot_mttkrp if mode == problem.pivot else row for mode, row in enumerate(rows)] if norm > 0 else None


def _means(problem: Unfolded) -> Rows:
    """The mean of each unfolding, as a unit vector."""
    modes = range(len(problem.shape))
    return [_unit(problem.tensor.mean(dim=[m for m in modes if m != mode])[None]) for mode in modes]


def _largest_entry(problem: Unfolded) -> Rows:
    """The coordinate vectors of the largest entry: contracted with them the tensor vanishes only if it is zero."""
    position = np.unravel_index(int(problem.tensor.abs().argmax()), problem.shape)
    return [
        torch.eye(size).to(problem.cube)[None, int(index)] for size, index in zip(problem.shape, position, strict=True)
    ]


def _unit(row: Tensor) -> Tensor:
    unit: Tensor = row / torch.linalg.vector_norm(row).clamp_min(TINY)
    return unit
