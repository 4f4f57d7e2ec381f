"""Every picture of a board, by the name that its files carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.figures.heat_map import draw_heat
from lowrank_bench.reporting.figures.plan_figure import draw_plans
from lowrank_bench.reporting.figures.scatter import draw_loss, draw_macs, encode
from lowrank_bench.reporting.figures.trial_figures import draw_tuning
from lowrank_bench.trial import CONTROL

Trials = Mapping[str, TrialRecord]


class Picture(NamedTuple):
    """A picture: the name that its files carry, what it shows, whether its markers stand for the board's rows, and its
    files by form, "png" and "svg".
    """

    kind: str
    title: str
    pointed: bool
    files: Mapping[str, bytes]


def pictures_of(board: Board, trials: Trials) -> Iterator[Picture]:
    """Draw what a board has to show; ``trials`` are the records that count, by key."""
    for kind, title, pointed, draw in _DRAWN:
        if (figure := draw(board, trials)) is not None:
            yield Picture(kind, title, pointed, encode(figure))


def _loss(board: Board, trials: Trials) -> Figure | None:
    return draw_loss(board) if board.scored else None


def _macs(board: Board, trials: Trials) -> Figure | None:
    return None if board.rows.empty else draw_macs(board)


def _heat(board: Board, trials: Trials) -> Figure | None:
    return draw_heat(board) if (board.rows["method"] != CONTROL).any() else None


_DRAWN: tuple[tuple[str, str, bool, Callable[[Board, Trials], Figure | None]], ...] = (
    ("loss", "Accuracy loss against measured speedup", True, _loss),
    ("macs", "Measured speedup against the ratio of MACs", True, _macs),
    ("heat", "Measured speedup in every runtime", False, _heat),
    ("plans", "Ranks and errors of the layers", False, draw_plans),
    ("tuning", "Fine-tuning", False, draw_tuning),
)
