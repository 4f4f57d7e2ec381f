"""How a whole-model target becomes ranks per layer: one common scale over all layers, and what is left over to the
largest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lowrank_bench.errors import InvalidBudget
from lowrank_bench.trial import Budget

TOLERANCE = 0.05
"""A budget counts as met within this relative distance."""


@dataclass(frozen=True)
class Choice:
    """One way to run a layer: its ranks (None: dense) and its cost in the budget's metric."""

    ranks: tuple[int, ...] | None
    cost: int


def allocate(budget: Budget, total: int, choices: Mapping[str, Sequence[Choice]]) -> dict[str, tuple[int, ...] | None]:
    """Ranks per layer (None: dense) such that ``total`` over the compressed total meets the budget's ratio within 5 %.

    ``total``: dense cost of the budget's scope; ``choices``: per layer, the dense choice among them. Every layer gets
    the costliest choice that is at most one common fraction of its dense cost (the cheapest where none is); then the
    layers, largest first, take what is left of the target. No layer is ever made dearer than dense. Raises
    InvalidBudget, naming the largest reachable ratio.
    """
    ladders = {name: _ladder(options) for name, options in choices.items()}
    fixed = total - sum(ladder[-1].cost for ladder in ladders.values())
    target = total / budget.ratio

    def spent(picks: Mapping[str, Choice]) -> int:
        return fixed + sum(choice.cost for choice in picks.values())

    def at(fraction: float) -> dict[str, Choice]:
        return {name: _costliest(ladder, fraction * ladder[-1].cost) for name, ladder in ladders.items()}

    least = spent(at(0.0))
    if least > target * (1 + TOLERANCE):
        raise InvalidBudget(
            f"budget {budget} is out of reach: the largest ratio that these layers and this method allow is "
            f"{total / least:.3g}"
        )
    fractions = sorted({choice.cost / ladder[-1].cost for ladder in ladders.values() for choice in ladder})
    picks = at(fractions[max(0, bisect_right(fractions, target, key=lambda f: spent(at(f))) - 1)]) if fractions else {}
    for name in sorted(ladders, key=lambda name: -ladders[name][-1].cost):
        left = target - spent(picks)
        if left > 0:
            picks[name] = _costliest(ladders[name], picks[name].cost + left)
    reached = total / spent(picks)
    if abs(reached / budget.ratio - 1) > TOLERANCE:
        raise InvalidBudget(
            f"budget {budget} cannot be met within 5 %: the nearest that these layers and this method allow is "
            f"{reached:.3g}"
        )
    return {name: choice.ranks for name, choice in picks.items()}


def _ladder(options: Sequence[Choice]) -> list[Choice]:
    """The choices that are cheaper than dense, cheapest first, dense last; of equal cost the last one, which has the
    larger ranks.
    """
    dense = next(choice for choice in options if choice.ranks is None)
    by_cost = {choice.cost: choice for choice in options if choice.cost < dense.cost}
    return [*(by_cost[cost] for cost in sorted(by_cost)), dense]


def _costliest(ladder: Sequence[Choice], limit: float) -> Choice:
    affordable = bisect_right(ladder, limit, key=lambda choice: choice.cost)
    return ladder[max(0, affordable - 1)]
