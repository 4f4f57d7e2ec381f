"""How a budget becomes ranks: as brute force would choose them, and fewer as the budget tightens."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import lowrank_bench as lrb
from lowrank_bench.compression.budget import Choice, allocate


def ladder(rows: int, columns: int) -> list[Choice]:
    """Choices for a matrix of decaying spectrum: rank r costs r (rows + columns) and loses the energy beyond r."""
    matrix = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energy = torch.linalg.svdvals(matrix * 0.9 ** torch.arange(columns)).square()
    lost = [float(energy[rank:].sum() / energy.sum()) for rank in range(rows + 1)]
    dense = rows * columns
    affordable = [rank for rank in range(1, rows + 1) if rank * (rows + columns) < dense]
    return [Choice(None, dense, 0.0), *(Choice((r,), r * (rows + columns), lost[r]) for r in affordable)]


def error(choice: Choice) -> float:
    assert choice.error is not None
    return choice.error


@pytest.mark.parametrize("ratio", [1.7, 2, 2.5])
def test_ranks_at_one_price_are_those_of_brute_force(ratio: float) -> None:
    """r* = argmin sum_l tail_l(r_l) + lambda cost_l(r_l), for the lambda at which the budget is met."""
    layers = {"a": ladder(40, 60), "b": ladder(30, 60), "c": ladder(20, 60)}
    chosen = allocate(lrb.Budget(params=ratio), 5400, layers)
    picked = [next(c for c in layers[name] if c.ranks == chosen[name]) for name in layers]
    assert all(c.ranks is not None for c in picked)
    spent, lost = sum(c.cost for c in picked), sum(map(error, picked))
    # the tails are convex in the rank, so one lambda misses the constrained optimum by at most one rank, of cost 100
    trios = (trio for trio in product(*layers.values()) if sum(c.cost for c in trio) <= spent - 100)
    assert lost <= min(sum(map(error, trio)) for trio in trios) + 1e-12


def test_ranks_fall_as_the_budget_tightens() -> None:
    layers = {"a": ladder(60, 90)}
    chosen = [allocate(lrb.Budget(params=ratio), 5400, layers)["a"] for ratio in (2, 2.5, 4, 6, 9, 18)]
    ranks = [pick[0] for pick in chosen if pick is not None]
    assert len(ranks) == len(chosen) and ranks == sorted(ranks, reverse=True)
    assert ranks[0] > ranks[-1]
