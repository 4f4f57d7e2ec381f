"""How a budget becomes ranks: as brute force would choose them, and fewer as the budget tightens."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
import torch

import lowrank_bench as lrb
from lowrank_bench.compression.budget import TOLERANCE, allocate, come_close
from lowrank_bench.compression.choices import Choice


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


def few(*costs: int, dense: int, known: bool = True) -> list[Choice]:
    """Choices of these costs, dearer ones with a smaller error, and the dense one."""
    dearer_loses_less = (Choice((cost,), cost, 0.5 * (1 - cost / dense) if known else None) for cost in costs)
    return [Choice(None, dense, 0.0), *dearer_loses_less]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ratio", [1.3, 1.6, 2, 2.5, 3.3])
def test_few_choices_meet_each_budget_that_brute_force_meets(ratio: float, known: bool) -> None:
    """At one price these layers jump past the budget; the choices that come within 5 % lose what brute force loses."""
    layers = {
        "a": few(150, dense=900, known=known),
        "b": few(100, 330, dense=700, known=known),
        "c": few(40, 60, dense=400, known=known),
    }
    trios = [(trio, 2000 / sum(choice.cost for choice in trio)) for trio in product(*layers.values())]
    meeting = [trio for trio, reached in trios if abs(reached / ratio - 1) <= TOLERANCE]
    if not meeting:
        with pytest.raises(lrb.errors.InvalidBudget, match="within 5 %"):
            allocate(lrb.Budget(params=ratio), 2000, layers)
        return
    chosen = allocate(lrb.Budget(params=ratio), 2000, layers)
    picked = tuple(next(c for c in layers[name] if c.ranks == chosen[name]) for name in layers)
    assert picked in meeting
    one_price = come_close(ratio, 2000, layers)[1]
    if known and abs(one_price / ratio - 1) > TOLERANCE:
        assert sum(c.loss for c in picked) == pytest.approx(min(sum(c.loss for c in trio) for trio in meeting))


def test_random_few_choices_meet_each_budget_that_brute_force_meets() -> None:
    draw = Random(1)
    missed = 0
    for _ in range(150):
        layers = {}
        for name in "abcd"[: draw.randint(1, 4)]:
            dense = draw.randint(50, 1000)
            layers[name] = few(*sorted(draw.sample(range(1, dense), draw.randint(1, 5))), dense=dense)
        total, ratio = sum(options[0].cost for options in layers.values()), draw.uniform(1.1, 4)
        all_reached = [total / sum(choice.cost for choice in some) for some in product(*layers.values())]
        if not any(abs(reached / ratio - 1) <= TOLERANCE for reached in all_reached):
            continue
        missed += abs(come_close(ratio, total, layers)[1] / ratio - 1) > TOLERANCE
        chosen = allocate(lrb.Budget(macs=ratio), total, layers)
        spent = sum(next(c.cost for c in layers[name] if c.ranks == ranks) for name, ranks in chosen.items())
        assert total / spent == pytest.approx(ratio, rel=TOLERANCE)
    assert missed > 10  # of which one price alone made refusals
