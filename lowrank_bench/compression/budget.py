"""How a whole-model target becomes ranks per layer: one price per unit of cost, the same for all layers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lowrank_bench.compression.choices import Choice, Ladder, LayerRanks, make_ladder
from lowrank_bench.compression.coarse import choose_within
from lowrank_bench.compression.cost import Cost
from lowrank_bench.errors import InvalidBudget
from lowrank_bench.trial import Budget

TOLERANCE = 0.05
"""A budget counts as met within this relative distance."""

BISECTIONS = 60

_Picks = dict[str, Choice]


def spent(cost: Cost, budget: Budget) -> int:
    """A model's cost, as it was counted in the budget's scope, in the budget's metric. Raises InvalidBudget where it is
    none.
    """
    if found := cost.macs if budget.metric == "macs" else cost.params:
        return found
    whose = "the model has no convolution: leave scope out" if budget.scope == "convs" else "the model costs nothing"
    raise InvalidBudget(f"budget {budget}: {whose}")


def allocate(budget: Budget, total: int, choices: Mapping[str, Sequence[Choice]]) -> LayerRanks:
    """Ranks per layer (None: dense) such that ``total`` over the compressed total meets the budget's ratio within 5 %.

    ``total``: dense cost of the budget's scope; ``choices``: per layer, the dense choice among them. The product of the
    layers' kept energies, 1 - error each, is maximised as Zhang et al. 2016 choose ranks, though their energies are of
    the responses and these are of the kernels, whatever the metric of the factors; by Lagrangian relaxation:
    every layer takes the choice with the least -log(1 - error) + price * cost, and the price is bisected. Where errors
    are unknown, every layer gets the same fraction of its dense cost instead. What is then left of the target goes to
    the largest layers. Where choices are so few that this misses the budget, an integer program looks for those that do
    not. No layer is made dearer than dense. Raises InvalidBudget, naming the largest reachable ratio.
    """
    check_reach(budget, total, choices)
    ranks, reached = come_close(budget.ratio, total, choices)
    if abs(reached / budget.ratio - 1) <= TOLERANCE:
        return ranks
    found = choose_within(TOLERANCE, budget.ratio, total, {name: make_ladder(some) for name, some in choices.items()})
    if found is None:
        nearest = f"the nearest that was found for these layers and this method is {reached:.4g}"
        raise InvalidBudget(f"budget {budget} cannot be met within 5 %: {nearest}")
    return found


def check_reach(budget: Budget, total: int, choices: Mapping[str, Sequence[Choice]]) -> None:
    """Raise InvalidBudget, naming the largest reachable ratio, where the cheapest choices do not meet the budget."""
    reachable = largest_ratio(total, choices)
    if reachable < budget.ratio * (1 - TOLERANCE):
        raise InvalidBudget(
            f"budget {budget} is out of reach: the largest ratio that these layers and this method allow is "
            f"{reachable:.4g}"
        )


def largest_ratio(total: int, choices: Mapping[str, Sequence[Choice]]) -> float:
    """The ratio, dense over compressed, of every layer's cheapest choice."""
    ladders = [make_ladder(options) for options in choices.values()]
    return total / (total - sum(ladder[-1].cost - ladder[0].cost for ladder in ladders))


def come_close(ratio: float, total: int, choices: Mapping[str, Sequence[Choice]]) -> tuple[LayerRanks, float]:
    """What ``allocate`` does, without judging it: ranks per layer, and the ratio that they reach."""
    ladders = {name: make_ladder(options) for name, options in choices.items()}
    fixed = total - sum(ladder[-1].cost for ladder in ladders.values())
    target = total / ratio
    known = all(choice.error is not None for ladder in ladders.values() for choice in ladder)
    pick: Callable[[Ladder, float], Choice] = _least_penalty if known else _least_fraction
    picks = _bisect(ladders, pick, lambda chosen: fixed + _spent(chosen) <= target)
    picks = _use_up(picks, ladders, target - fixed)
    return {name: choice.ranks for name, choice in picks.items()}, total / (fixed + _spent(picks))


def _bisect(
    ladders: Mapping[str, Ladder], pick: Callable[[Ladder, float], Choice], fits: Callable[[_Picks], bool]
) -> _Picks:
    """The dearest picks that fit, over a price from 0 (all dense) upwards; all cheapest where nothing else fits."""

    def at(price: float) -> _Picks:
        return {name: pick(ladder, price) for name, ladder in ladders.items()}

    best = {name: ladder[0] for name, ladder in ladders.items()}
    # prices span many orders of magnitude: errors are shares of 1, costs go from one weight to billions of MACs
    low, high = 1e-15, 1e6
    if fits(dense := at(0.0)):
        return dense
    for _ in range(BISECTIONS):
        price = (low * high) ** 0.5
        if fits(picks := at(price)):
            best, high = picks, price
        else:
            low = price
    return best


def _use_up(picks: _Picks, ladders: Mapping[str, Ladder], target: float) -> _Picks:
    """Give what is left of the target to the layers, the largest first; then the one change that comes nearest."""
    picks = dict(picks)
    for name in sorted(ladders, key=lambda name: -ladders[name][-1].cost):
        left = target - _spent(picks)
        picks[name] = _costliest(ladders[name], picks[name].cost + max(left, 0.0))
    over = _spent(picks) - target
    changes = ((name, choice) for name, ladder in ladders.items() for choice in (picks[name], *ladder))
    nearest = min(changes, key=lambda change: abs(over + change[1].cost - picks[change[0]].cost), default=None)
    return picks if nearest is None else picks | dict([nearest])


def _least_penalty(ladder: Ladder, price: float) -> Choice:
    """The Lagrangian's minimiser; the dearer choice on a tie."""
    return min(reversed(ladder), key=partial(_penalty, price=price))


def _penalty(choice: Choice, price: float) -> float:
    return choice.loss + price * choice.cost


def _least_fraction(ladder: Ladder, price: float) -> Choice:
    """The costliest choice below one fraction of dense, which falls with the price."""
    return _costliest(ladder, ladder[-1].cost / (1 + price))


def _spent(picks: _Picks) -> int:
    return sum(choice.cost for choice in picks.values())


def _costliest(ladder: Ladder, limit: float) -> Choice:
    affordable = bisect_right(ladder, limit, key=lambda choice: choice.cost)
    return ladder[max(0, affordable - 1)]
