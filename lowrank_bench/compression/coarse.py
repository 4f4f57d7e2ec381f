"""Budgets that one price misses, as layers have few candidates: the best choices that meet them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lowrank_bench.compression.choices import Ladder, LayerRanks

SECONDS = 10.0
"""Of searching, after which the best choices so far count."""


def choose_within(tolerance: float, ratio: float, total: int, ladders: Mapping[str, Ladder]) -> LayerRanks | None:
    """Ranks per layer (None: dense) with which ``total`` over the compressed total is ``ratio`` within the relative
    ``tolerance``; None where none were found.

    Of all such the ones with the least sum of -log(1 - error); where an error is not known, the ones that bring every
    layer's share of its dense cost closest to that of the network. An integer program, solved by branch and bound.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second that most budgets do not need

    flat = [(name, choice, ladder[-1].cost) for name, ladder in ladders.items() for choice in ladder]
    shares = np.array([choice.cost / total for _, choice, _ in flat])  # the solver's tolerances are absolute
    fixed = 1 - sum(ladder[-1].cost for ladder in ladders.values()) / total
    if all(choice.error is not None for _, choice, _ in flat):
        losses = [choice.loss for _, choice, _ in flat]
    else:
        losses = [(choice.cost / dense - 1 / ratio) ** 2 for _, choice, dense in flat]
    one_each = np.array([[name == layer for name, *_ in flat] for layer in ladders], float)
    least, most = 1 / (ratio * (1 + tolerance)), 1 / (ratio * (1 - tolerance))
    found = milp(
        losses,
        integrality=np.ones(len(flat), int),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(shares, least - fixed, most - fixed)],
        options={"time_limit": SECONDS},
    )
    if found.x is None:
        return None
    return {name: choice.ranks for (name, choice, _), taken in zip(flat, found.x, strict=True) if taken > 0.5}
