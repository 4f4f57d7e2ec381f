"""The ways in which a layer can run: its ranks, what they cost, and what they lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

LEAST_ENERGY = 1e-12
"""Below this a layer keeps nothing: bounds on errors may reach 1."""


@dataclass(frozen=True)
class Choice:
    """One way to run a layer: its ranks (None: dense), its cost in the budget's metric, its squared relative error."""

    ranks: tuple[int, ...] | None
    cost: int
    error: float | None

    @cached_property
    def loss(self) -> float:
        """What is added up over layers, -log(1 - error); 0 where the error is not known."""
        return -math.log(max(1 - (self.error or 0.0), LEAST_ENERGY))


def error_of(loss: float) -> float:
    """The error of a choice that is to count as much as ``loss``."""
    return -math.expm1(-loss)


Ladder = list[Choice]
"""The choices of a layer, cheapest first, dense last."""
LayerRanks = dict[str, tuple[int, ...] | None]


def make_ladder(options: Sequence[Choice]) -> Ladder:
    """The choices that are cheaper than dense, and dense; of equal cost the one with the larger ranks."""
    dense = next(choice for choice in options if choice.ranks is None)
    by_cost = {choice.cost: choice for choice in options if choice.cost < dense.cost}
    return [*(by_cost[cost] for cost in sorted(by_cost)), dense]
