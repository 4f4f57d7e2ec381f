"""The same models on two machines: how far a speedup, and the order of the models, carries over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median

from lowrank_bench.reporting.boards.board import Board, Row
from lowrank_bench.reporting.boards.cells import setting_text
from lowrank_bench.reporting.boards.reach import reach
from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.trial import is_met_by_timing

_HEADINGS = [
    "Network", "Setting", "Machines", "Dense ms", "Models on both", "Beyond both intervals",
    "Second's speedups over the first's, median", "Least to most", "Pairs in the same order", "Pairs in reverse",
]  # fmt: skip


def machines_grid(boards: Sequence[Board]) -> Grid:
    """A line for each network and setting in which models were timed on two machines, and of how many the speedups lie
    apart. Of pairs of models those count whose speedups lie apart on both machines. Apart: the intervals, each widened
    by its noise floor.
    """
    return Grid(_HEADINGS, [cells for one, other in _pairs(boards) for cells in _compared(one, other)])


def _pairs(boards: Sequence[Board]) -> Iterator[tuple[Board, Board]]:
    """Boards of the same network and recipe on two machines, by the machines' names."""
    ordered = sorted(boards, key=lambda board: board.machine)
    for one, other in combinations(ordered, 2):
        if (one.task, one.model, one.recipe) == (other.task, other.model, other.recipe):
            yield one, other


def _compared(one: Board, other: Board) -> Iterator[list[str]]:
    for setting in one.settings:
        here, there = one.models_in(setting), other.models_in(setting)
        both = [(here[what], there[what]) for what in here if what in there and not is_met_by_timing(what[-1])]
        if not both:
            continue
        carried = [second.speedup / first.speedup for first, second in both]
        signs = [_sign(a[0], b[0]) * _sign(a[1], b[1]) for a, b in combinations(both, 2)]
        times = [board.in_setting(setting)["runtime_dense_ms"].iloc[0] for board in (one, other)]
        yield [
            f"{one.model} on {one.task}, recipe {one.recipe}",
            setting_text(*setting),
            f"{one.machine}, {other.machine}",
            ", ".join(f"{ms:.3g}" for ms in times),
            str(len(both)),
            str(sum(_sign(*pair) != 0 for pair in both)),
            f"{median(carried):.2f}",
            f"{min(carried):.2f} to {max(carried):.2f}",
            str(signs.count(1)),
            str(signs.count(-1)),
        ]


def _sign(one: Row, other: Row) -> int:
    """1 where the first is faster beyond the reach of both, -1 where the second is, else 0."""
    (low, high), (least, most) = reach(one), reach(other)
    return int(low > most) - int(least > high)
