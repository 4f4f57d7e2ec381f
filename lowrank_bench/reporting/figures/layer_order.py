"""The layers of a network in the order in which it calls them, as far as its records tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from lowrank_bench.record import Size

CHOSEN = ("the budget ", "not named in ranks", "evbmf: ", "energy:")
"""How the reasons begin of a layer that its method takes, but that stayed dense here."""
_LINEAR = "linear layers"


def stayed_dense(reason: str) -> bool:
    """Whether a layer was left dense by the choice of ranks; else its method does not take it."""
    return reason.startswith(CHOSEN)


def network_order(sizes: Sequence[Size]) -> list[str]:
    """Every layer that the records of one network name. Each record lists those that it compressed in the network's
    order, and so those that it left for one reason; what that leaves open goes by name, its numbers as numbers, a block
    in one piece, linear layers last.
    """
    chains = [chain for size in sizes for chain in _chains(size)]
    names = [*dict.fromkeys(name for chain in chains for name in chain)]
    linear = linear_layers(sizes)

    def place(name: str) -> tuple[bool, list[tuple[int, str]]]:
        return name in linear, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    def following(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
        last, numbers = place(name)
        return last, bool(order) and _block(name) != _block(order[-1]), numbers

    before: dict[str, set[str]] = {name: set() for name in names}
    for chain in chains:
        for first, second in pairwise(chain):
            before[second].add(first)
    sorter = TopologicalSorter(before)
    try:
        sorter.prepare()
    except CycleError:  # networks of one name that are not the same
        return sorted(names, key=place)
    order: list[str] = []
    ready = {*sorter.get_ready()}
    while ready:
        order.append(min(ready, key=following))
        ready.remove(order[-1])
        sorter.done(order[-1])
        ready |= {*sorter.get_ready()}
    return order


def linear_layers(sizes: Sequence[Size]) -> set[str]:
    """The layers that any record left dense because they are linear."""
    return {name for size in sizes for name, reason in size.skipped.items() if _LINEAR in reason}


def _block(name: str) -> str:
    return re.split(r"[\d.]", name, maxsplit=1)[0]


def _chains(size: Size) -> list[list[str]]:
    reasons = dict.fromkeys(size.skipped.values())
    return [[*size.layers], *([name for name, why in size.skipped.items() if why == reason] for reason in reasons)]
