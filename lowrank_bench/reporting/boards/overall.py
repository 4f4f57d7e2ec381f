"""All networks of one machine together: how a method does over networks, where what it cannot do counts as no gain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.boards.board import Board, allowed
from lowrank_bench.reporting.frame.columns import Setting


class OverallRow(NamedTuple):
    """A method at a target in a setting. ``speedup``, ``low``, ``high``: geometric means over the ``tried`` networks,
    of the speedup and of the ends of its interval; ``kept``: of how many of them it is their own and not 1;
    ``front``: on how many it is Pareto-optimal; ``networks``: on how many any method was tried at this target in this
    setting; ``rank``: its place there, None where it was not tried on all of them, or is 1 on all.
    """

    rank: int | None
    method: str
    options: str
    target: str
    setting: Setting
    speedup: float
    low: float
    high: float
    tried: int
    kept: int
    front: int
    networks: int


@dataclass(frozen=True)
class Overall:
    """One table over all the networks that were tuned by one recipe and timed on one machine, those of known accuracy
    apart from those timed for speed alone. ``rows`` are in ranking order at each target of each setting, what was
    tried on most networks first, where nothing has a rank last.
    """

    machine: str
    recipe: str
    scored: bool
    max_loss: float
    networks: list[str]
    rows: list[OverallRow]

    @property
    def name(self) -> str:
        """Such as ``All 3 networks, recipe standard, bench-1``."""
        alone = "" if self.scored else ", speed alone"
        return f"All {len(self.networks)} networks, recipe {self.recipe}, {self.machine}{alone}"


def make_overall(boards: Sequence[Board]) -> list[Overall]:
    """A table for each machine and recipe on which methods were tried on more than one network.

    A method that refused a network, failed on it, or lost more than the board's ``max_loss`` points of top-1, counts as
    a speedup of 1 there: its user would keep the dense model. What does so on every network has no rank. Where it was
    never tried, in any seed, or its loss is not known, it counts as nothing, and has no rank. A table is left out that
    compares too little: fewer than two methods were tried on half of its networks at least.
    """
    groups: dict[tuple[str, str, bool], list[Board]] = {}
    for board in boards:
        if not board.rows.empty:
            groups.setdefault((board.machine, board.recipe, board.scored), []).append(board)
    tables = [_overall(group) for _, group in sorted(groups.items())]
    return [table for table in tables if len({row.method for row in table.rows if 2 * row.tried >= row.networks}) >= 2]


def _overall(boards: list[Board]) -> Overall:
    first = boards[0]
    fields: dict[tuple[Setting, str], list[Board]] = {}
    for board in boards:
        for setting in board.settings:
            tried = [*board.models_in(setting), *board.ends_without_time(setting)]
            for target in dict.fromkeys(target for _, _, target in tried):
                fields.setdefault((setting, target), []).append(board)
    shared = {field: group for field, group in fields.items() if len(group) > 1}
    ordered = sorted(shared.items(), key=lambda field: (-len(field[1]), field[0]))
    tables = [_ranked(_in_field(group, setting, target)) for (setting, target), group in ordered]
    rows = [row for table in sorted(tables, key=_ranks_nothing) for row in table]
    compared = {board.network for group in shared.values() for board in group}
    networks = [board.network for board in boards if board.network in compared]
    return Overall(first.machine, first.recipe, first.scored, first.max_loss, networks, rows)


def _in_field(boards: list[Board], setting: Setting, target: str) -> list[OverallRow]:
    """What was tried on two networks at least, at one target in one setting."""
    timed = [board.models_in(setting) for board in boards]
    refused = [board.ends_without_time(setting) for board in boards]
    rows = []
    for what in sorted({what for known in [*timed, *refused] for what in known if what[2] == target}):
        outcomes: list[tuple[float, float, float] | None] = []
        front = 0
        for board, known, without in zip(boards, timed, refused, strict=True):
            row = known.get(what)
            if (row is None and what not in without) or (row is not None and board.scored and pd.isna(row.top1_drop)):
                continue
            own = None
            if row is not None and (not board.scored or row.top1_drop <= allowed(board.max_loss)):
                own = row.speedup, row.speedup_low, row.speedup_high
            outcomes.append(own)
            front += row is not None and bool(row.pareto)
        if len(outcomes) < 2:
            continue
        ends = zip(*(outcome or (1.0, 1.0, 1.0) for outcome in outcomes), strict=True)
        speedup, low, high = map(_geometric_mean, ends)
        kept = sum(outcome is not None for outcome in outcomes)
        rows.append(OverallRow(None, *what, setting, speedup, low, high, len(outcomes), kept, front, len(boards)))
    return rows


def _ranked(rows: list[OverallRow]) -> list[OverallRow]:
    """What was tried on all networks and is of use on one has a rank; below are the others, the useless ones last."""
    ranked = [row for row in rows if row.tried == row.networks and row.kept]
    others = [row for row in rows if row not in ranked]
    ranked.sort(key=lambda row: -row.low)
    others.sort(key=lambda row: (not row.kept, -row.low))
    return [row._replace(rank=place) for place, row in enumerate(ranked, start=1)] + others


def _ranks_nothing(rows: list[OverallRow]) -> bool:
    return all(row.rank is None for row in rows)


def _geometric_mean(values: Iterable[float]) -> float:
    return math.exp(fmean(map(math.log, values)))
