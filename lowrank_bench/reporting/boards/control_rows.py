"""How often the published intervals of the dense model against its own copy hold the truth, which is 1."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.boards.cells import interval_text
from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.trial import CONTROL

HEADINGS = [
    "Machine",
    "Processes",
    "A/A rows",
    "Hold 1",
    "Share, % [95 %]",
    'Verdict "same"',
    "Unstable",
    "Median half-width",
]
STATED = 0.95


def controls_grid(boards: Sequence[Board]) -> Grid:
    """By machine and number of processes, of at least two: of the timings of dense controls, how many 95 % intervals
    hold 1, as a share with its exact interval (Clopper and Pearson 1934).
    """
    return Grid(HEADINGS, [_line(rows) for rows in _alike(boards)])


def fall_short(boards: Sequence[Board]) -> list[str]:
    """The machines on which too few of these intervals hold 1 for chance alone."""
    short = [rows for rows in _alike(boards) if share_interval(_held(rows), len(rows))[1] < STATED]
    return list(dict.fromkeys(str(rows["machine"].iloc[0]) for rows in short))


def _alike(boards: Sequence[Board]) -> list[pd.DataFrame]:
    """The controls of each machine and number of processes."""
    tables = [table for board in boards if not (table := _controls(board)).empty]
    return [rows for _, rows in pd.concat(tables).groupby(["machine", "processes"])] if tables else []


def _controls(board: Board) -> pd.DataFrame:
    """One row for each dense control and setting in which several processes timed it."""
    rows = board.timings
    return rows[(rows["method"] == CONTROL) & (rows["processes"] > 1)]


def _line(rows: pd.DataFrame) -> list[str]:
    held, count = _held(rows), len(rows)
    low, high = share_interval(held, count)
    width = ((rows["speedup_high"] - rows["speedup_low"]) / (2 * rows["speedup"])).median()
    return [
        str(rows["machine"].iloc[0]),
        str(rows["processes"].iloc[0]),
        str(count),
        str(held),
        interval_text(100 * held / count, 100 * low, 100 * high, ".0f"),
        str(int((rows["verdict"] == "same").sum())),
        str(int(rows["unstable"].sum())),
        f"{width:.1%}",
    ]


def _held(rows: pd.DataFrame) -> int:
    return int(((rows["speedup_low"] <= 1) & (rows["speedup_high"] >= 1)).sum())


def share_interval(held: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of which ``held`` of ``count`` were seen."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(held, count - held + 1, tail)) if held else 0.0
    high = float(betaincinv(held + 1, count - held, 1 - tail)) if held < count else 1.0
    return low, high
