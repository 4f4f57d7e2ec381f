"""CP term after term, as in Denton et al. 2014."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from lowrank_bench.decomposition.cp_problem import decompose
from lowrank_bench.decomposition.cp_result import CPResult
from lowrank_bench.decomposition.mttkrp import Rows, Unfolded

PRECISION = 1e-10  # a term's norm that grows by less than this part in a sweep has settled


def cp_greedy(tensor: Tensor, rank: int, *, max_sweeps: int = 64) -> CPResult:
    """CP by deflation (Denton et al. 2014, outer product decomposition): fit one rank-1 term to what is left, subtract
    it, `rank` times.

    A term starts from the mean of each unfolding and is fitted by at most `max_sweeps` alternating power updates (64 in
    the paper's release). Later terms never repair earlier ones, so the error is that of `cp_nls` or larger, and equal
    for matrices. `history` holds the errors after 0, 1, ... terms; closed forms, result and errors are those of
    `cp_nls`.
    """
    return decompose(tensor, rank, lambda problem, _: _deflate(problem, rank, max_sweeps))


def _deflate(problem: Unfolded, rank: int, max_sweeps: int) -> tuple[list[Tensor], list[float]]:
    rest, history, terms = problem, [1.0], []
    for _ in range(rank):
        term = _rank_one(rest, max_sweeps)
        rest = rest.residual(term)
        terms.append(term)
        history.append(math.sqrt(rest.squared_norm()))
    return [torch.cat(vectors) for vectors in zip(*terms, strict=True)], history


def _rank_one(problem: Unfolded, max_sweeps: int) -> Rows:
    """A rank-1 fit: every vector in turn is replaced by the tensor contracted with the others, and normalised."""
    modes = range(len(problem.shape))
    start: Rows = [_unit(problem.tensor.mean(dim=[m for m in modes if m != mode])[None]) for mode in modes]
    rows, norm = start, 0.0
    for swept, pivot_mttkrp in islice(problem.sweeps(start, lambda _gram, mttkrp, _row: _unit(mttkrp)), max_sweeps):
        rows, norm, last = swept, float(torch.linalg.vector_norm(pivot_mttkrp)), norm
        if norm - last <= PRECISION * norm:
            break
    return [pivot_mttkrp if mode == problem.pivot else row for mode, row in enumerate(rows)]


def _unit(row: Tensor) -> Tensor:
    """The row at norm 1; a zero row, orthogonal to all before it, is replaced by a constant one."""
    norm = torch.linalg.vector_norm(row)
    return row / norm if norm > 0 else torch.full_like(row, row.shape[1] ** -0.5)
