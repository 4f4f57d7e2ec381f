"""Every picture of a board, by the name that its files carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.board import Board
from lowrank_bench.reporting.figures import draw_loss, draw_macs
from lowrank_bench.reporting.heat_map import draw_heat
from lowrank_bench.reporting.plan_figure import draw_plans
from lowrank_bench.reporting.trial_figures import draw_tuning
from lowrank_bench.trial import CONTROL

Trials = Mapping[str, TrialRecord]


class Drawn(NamedTuple):
    """A picture: the name that its files carry, what it shows, and whether its markers stand for the board's rows."""

    kind: str
    title: str
    pointed: bool
    figure: Figure


class _Kind(NamedTuple):
    title: str
    draw: Callable[[Board, Trials], Figure | None]
    pointed: bool = False


def pictures_of(board: Board, trials: Trials) -> Iterator[Drawn]:
    """Draw what a board has to show; ``trials`` are the records that count, by key."""
    for name, kind in _KINDS.items():
        if (figure := kind.draw(board, trials)) is not None:
            yield Drawn(name, kind.title, kind.pointed, figure)


def _loss(board: Board, trials: Trials) -> Figure | None:
    return draw_loss(board) if board.scored else None


def _macs(board: Board, trials: Trials) -> Figure | None:
    return None if board.rows.empty else draw_macs(board)


def _heat(board: Board, trials: Trials) -> Figure | None:
    return draw_heat(board) if (board.rows["method"] != CONTROL).any() else None


_KINDS = {
    "loss": _Kind("Accuracy loss against measured speedup", _loss, pointed=True),
    "macs": _Kind("Measured speedup against the ratio of MACs", _macs, pointed=True),
    "heat": _Kind("Measured speedup in every runtime", _heat),
    "plans": _Kind("Ranks and errors of the layers", draw_plans),
    "tuning": _Kind("Fine-tuning", draw_tuning),
}
