"""Two pictures of a board: accuracy loss against measured speedup, and measured speedup against the ratio of MACs."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lowrank_bench.reporting.boards.board import Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import row_id, setting_text
from lowrank_bench.reporting.boards.pareto import DENSE
from lowrank_bench.reporting.figures.labels import Label, place_labels
from lowrank_bench.reporting.figures.styles import (
    RC,
    method_style,
    paper_style,
    scale_points,
    scale_ratios,
    short,
    text_width,
    wrapped,
)
from lowrank_bench.reporting.frame.columns import What, what_of
from lowrank_bench.trial import CONTROL

DPI = 160
_NAME = 40  # characters beside a point
_SAME_MACS = 1.05  # ratio within which models stand side by side
_STEP, _SPREAD = 0.0725, 0.145  # powers of 2: from one to the next of those, and from first to last: 6 % off at most

_DENSE_LINE: dict[str, Any] = {"color": "0.4", "linewidth": 0.8}
_LIMIT_LINE: dict[str, Any] = {"color": "0.4", "linewidth": 1.2, "linestyle": ":"}
_FRONT_LINE: dict[str, Any] = {"color": "0.6", "linewidth": 1.2, "zorder": 1}
_DIAGONAL: dict[str, Any] = {"color": "0.6", "linewidth": 1.2, "linestyle": "--", "zorder": 1}

_Fills = dict[tuple[str, str], str]
"""How markers are filled, by method and options: colour and shape belong to the method alone."""


class _Picture(NamedTuple):
    title: str
    x: str
    y: str
    panel: Callable[[Axes, Board, list[Row], _Fills], list[Label]]
    """Draws one setting and returns what is to be written into it."""
    lines: dict[str, dict[str, Any]]
    """For the legend."""


def draw_loss(board: Board) -> Figure:
    """Loss of top-1 against measured speedup with the Pareto front, its points labelled, a panel per setting."""
    return _draw(
        board,
        _Picture(
            "Accuracy loss against measured speedup",
            x="measured speedup, dense over compressed (→ faster)",
            y="top-1 loss after tuning,\npoints (↓ better)",
            panel=_loss_panel,
            lines={"Pareto front": _FRONT_LINE, f"loss of {board.max_loss:g}": _LIMIT_LINE},
        ),
    )


def draw_macs(board: Board) -> Figure:
    """Measured speedup against the ratio of MACs, a panel per setting; on the diagonal, saved MACs are saved time."""
    return _draw(
        board,
        _Picture(
            "Measured speedup against the ratio of MACs",
            x="MACs, dense over compressed\n(about the same ratio: side by side, by method, at most 6 % off)",
            y="measured speedup,\ndense over compressed",
            panel=_macs_panel,
            lines={"speedup = MACs ratio": _DIAGONAL},
        ),
    )


def encode(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg": the same bytes whenever it is drawn from the same records by the same packages."""
    undated: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}
    files = {}
    with mpl.rc_context(RC):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out, and would be again for every file
        for form, metadata in undated.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
            files[form] = buffer.getvalue()
    return files


def _draw(board: Board, picture: _Picture) -> Figure:
    settings = board.settings
    columns = 2 if len(settings) == 4 else min(3, len(settings))
    lines = math.ceil(len(settings) / columns)
    fills = _fills(board)
    with paper_style():
        names = [" ".join(kind).strip() for kind in fills]
        side = max(2.6, 0.8 + text_width(names))
        figure = Figure(figsize=(3.4 * columns + side, 3.1 * lines + 1.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = [*figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat]
        labels = {}
        for number, (axes, setting) in enumerate(zip(panels, settings, strict=False)):
            labels[axes] = picture.panel(axes, board, rows_of(board.in_setting(setting)), fills)
            axes.set_title(setting_text(*setting))
            axes.set_ylabel(picture.y if number % columns == 0 else "")
            axes.tick_params(labelbottom=number + columns >= len(settings))
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
        title = wrapped(board.name, figure.get_size_inches()[0] / 1.2)
        figure.suptitle(f"{picture.title}\n{title}", fontsize="large")
        note = "bars: 95 % intervals; panels: runtime, threads (t), batch (b)"
        figure.supxlabel(f"{picture.x}\n{note}", fontsize="medium")
        figure.legend(handles=_legend(fills, picture.lines), loc="outside right center", frameon=False)
        figure.draw_without_rendering()  # text is placed where the layout has put the points
        for axes, texts in labels.items():
            place_labels(axes, texts)
    return figure


def _loss_panel(axes: Axes, board: Board, rows: list[Row], fills: _Fills) -> list[Label]:
    known = board.rows[board.rows["top1_drop"].notna()]
    scale_ratios(axes, "x", known["speedup"].tolist(), [*known["speedup_low"], *known["speedup_high"]])
    scale_points(axes, known["top1_drop"].tolist())
    axes.axvline(1, **_DENSE_LINE)
    axes.axhline(board.max_loss, **_LIMIT_LINE)
    front = sorted((row.speedup, row.top1_drop) for row in rows if row.pareto)
    if not any(speedup >= DENSE[0] and loss <= DENSE[1] for speedup, loss in front):
        front = sorted([*front, DENSE])
    axes.plot(*zip(*front, strict=True), drawstyle="steps-pre", **_FRONT_LINE)
    for row in rows:
        across = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
        along = [[row.top1_drop - row.top1_drop_low], [row.top1_drop_high - row.top1_drop]]
        look = _look(row, fills)
        point, *_ = axes.errorbar(row.speedup, row.top1_drop, xerr=across, yerr=along, elinewidth=1, **look)
        point.set_gid(row_id(row))  # by which the page tells whose point it is
    placed = [row for row in rows if not math.isnan(row.top1_drop)]
    names = _names([row for row in placed if row.pareto])
    return [Label(row.speedup, row.top1_drop, names.get(row_id(row), "")) for row in placed]


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Method and target of each row, by its id, and its options where only they tell it from another."""
    bare = Counter((row.method, row.target) for row in rows)
    parts = {
        row_id(row): (row.method, row.options if bare[row.method, row.target] > 1 else "", row.target) for row in rows
    }
    return {name: short(" ".join(filter(None, part)), _NAME) for name, part in parts.items()}


def _macs_panel(axes: Axes, board: Board, rows: list[Row], fills: _Fills) -> list[Label]:
    every = board.rows
    places = _side_by_side(board, fills)
    scale_ratios(axes, "x", [place for place in places.values() if place > 0])
    scale_ratios(axes, "y", every["speedup"].tolist(), [*every["speedup_low"], *every["speedup_high"]])
    axes.axline((1, 1), (2, 2), **_DIAGONAL)
    axes.axhline(1, **_DENSE_LINE)
    for row in rows:
        along = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
        x = places[what_of(row)]
        point, *_ = axes.errorbar(x, row.speedup, yerr=along, elinewidth=1, **_look(row, fills))
        point.set_gid(row_id(row))
    return []


def _side_by_side(board: Board, fills: _Fills) -> dict[What, float]:
    """Where each model stands on the axis of MACs: those of about the same ratio next to each other, in the order of
    the legend, so that none hides another; their middle is their own.
    """
    models = {what_of(row): row.macs_ratio for row in rows_of(board.rows)}
    groups: list[list[What]] = []
    for what in sorted((what for what in models if models[what] > 0), key=lambda what: models[what]):
        if groups and models[what] <= models[groups[-1][0]] * _SAME_MACS:
            groups[-1].append(what)
        else:
            groups.append([what])
    places = dict(models)
    order = [*fills]
    for group in groups:
        kinds = sorted({what[:2] for what in group}, key=order.index)
        step = min(_STEP, _SPREAD / max(1, len(kinds) - 1))
        for what in group:
            places[what] *= 2 ** (step * (kinds.index(what[:2]) - (len(kinds) - 1) / 2))
    return places


def _fills(board: Board) -> _Fills:
    """A fill for each variant of a method, in the order of its options."""
    variants = sorted({(row.method, row.options) for row in rows_of(board.rows)})
    kinds = {method: cycle(("full", "none", "left", "right", "top", "bottom")) for method, _ in variants}
    return {(method, options): next(kinds[method]) for method, options in variants}


def _look(row: Row, fills: _Fills) -> dict[str, Any]:
    return _marker(row.method, fills[row.method, row.options])


def _marker(method: str, fill: str) -> dict[str, Any]:
    colour, marker = method_style(method)
    size = 10 if method == CONTROL else 7
    return {"color": colour, "marker": marker, "fillstyle": fill, "markersize": size, "linestyle": "none"}


def _legend(fills: _Fills, lines: dict[str, dict[str, Any]]) -> list[Line2D]:
    names = {(method, options): f"{method} {options}".strip() for method, options in fills}
    points = [Line2D([], [], label=names[kind], **_marker(kind[0], fill)) for kind, fill in fills.items()]
    return points + [Line2D([], [], label=name, **look) for name, look in lines.items()]
