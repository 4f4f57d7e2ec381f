"""A picture of how the models of a board were made: ranks and errors of their layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from lowrank_bench.record import Size, TrialRecord
from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.figures.layer_order import linear_layers, network_order, stayed_dense
from lowrank_bench.reporting.figures.styles import frame_label, heat_axes, paper_style, short, text_width, wrapped
from lowrank_bench.reporting.frame.columns import What

_LOOKS: dict[str, dict[str, Any]] = {
    "compressed, error not known": {"facecolor": "#e8f1fa", "edgecolor": "white"},
    "stayed dense": {"facecolor": "0.85", "edgecolor": "white"},
    "out of scope": {"facecolor": "white", "edgecolor": "0.7", "hatch": "////"},
}
_UNKNOWN, _DENSE, _OUT = _LOOKS
_TALL, _FLAT, _ROOM = 0.3, 0.17, 9.0  # inches: height of a row where there are few and many, and of all where it fits
_NARROW = 0.45  # inches: width of a column at least


class _Cell(NamedTuple):
    ranks: str
    error: float
    look: str
    """One of _LOOKS; empty where the error's colour is shown."""


def draw_plans(board: Board, trials: Mapping[str, TrialRecord]) -> Figure | None:
    """Ranks of every layer (written) and its relative weight error (colour) for each method and target, of the lowest
    seed; None where no model has compressed layers.

    Layers stand below each other in the network's order, or side by side where there are more models than layers.
    """
    models = {what: records[0].size for what, records in board.models(trials).items()}
    plans = {what: size for what, size in models.items() if size and size.layers}
    if not plans:
        return None
    sizes = [*plans.values()]
    layers, linear = network_order(sizes), linear_layers(sizes)
    cells = [[_cell(size, layer, layer in linear, what[2]) for what, size in plans.items()] for layer in layers]
    names = [short(" ".join(filter(None, what))) for what in plans]
    across = len(plans) > len(layers)  # the longer side runs down
    down_names, across_names = (names, layers) if across else (layers, names)
    if across:
        cells = [[*column] for column in zip(*cells, strict=True)]
    with paper_style():
        figure, axes = _axes(cells, down_names, across_names)
        _draw_cells(axes, cells)
        axes.set_xticks(np.arange(len(across_names)) + 0.5, across_names, rotation=30, ha="right", fontsize="small")
        axes.set_yticks(np.arange(len(down_names)) + 0.5, down_names, fontsize="small")
        _frame(axes.get_yticklabels() if across else axes.get_xticklabels(), [*plans])
        shown = {cell.look for row in cells for cell in row} - {""}
        handles = [Patch(label=look, **_LOOKS[look]) for look in _LOOKS if look in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
        title = "Ranks (written) and relative weight errors (Frobenius) of the layers"
        inches = figure.get_size_inches()[0]
        figure.suptitle(f"{wrapped(title, inches)}\n{wrapped(board.name, inches)}", fontsize="medium")
    return figure


def _cell(size: Size, layer: str, linear: bool, target: str) -> _Cell:
    if (made := size.layers.get(layer)) is not None:
        error = math.nan if made.error is None else made.error
        return _Cell("×".join(map(str, made.ranks)), error, _UNKNOWN if math.isnan(error) else "")
    out = linear and target.endswith("(convs)")
    return _Cell("", math.nan, _DENSE if stayed_dense(size.skipped.get(layer, "")) and not out else _OUT)


def _axes(cells: Sequence[Sequence[_Cell]], down: Sequence[str], across: Sequence[str]) -> tuple[Figure, Axes]:
    slanted = text_width(across)
    cell = max(_NARROW, 0.15 + 0.6 * text_width(cell.ranks for row in cells for cell in row))
    width = 2 + max(text_width(down), 0.9 * slanted) + cell * len(across)
    height = 2 + 0.5 * slanted + len(down) * max(_FLAT, min(_TALL, _ROOM / len(down)))
    return heat_axes(width, height)


def _draw_cells(axes: Axes, cells: Sequence[Sequence[_Cell]]) -> None:
    errors = np.array([[cell.error for cell in row] for row in cells])
    known = not np.isnan(errors).all()
    sns.heatmap(
        errors,
        ax=axes,
        annot=np.array([[cell.ranks for cell in row] for row in cells], dtype=object),
        fmt="",
        annot_kws={"fontsize": "x-small"},
        cmap="cividis_r",
        vmin=0,
        vmax=1,
        linewidths=1,
        xticklabels=False,
        yticklabels=False,
        cbar=known,
        cbar_kws={"label": "relative error"} if known else None,
    )
    for down, row in enumerate(cells):
        for right, cell in enumerate(row):
            if cell.look:
                axes.add_patch(Rectangle((right, down), 1, 1, linewidth=1, **_LOOKS[cell.look]))
                axes.text(right + 0.5, down + 0.5, cell.ranks, ha="center", va="center", fontsize="x-small")


def _frame(labels: Sequence[Text], plans: Sequence[What]) -> None:
    for label, (method, *_) in zip(labels, plans, strict=True):
        frame_label(label, method)
