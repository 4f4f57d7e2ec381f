"""Two pictures of a board: accuracy loss against measured speedup, and measured speedup against the ratio of MACs."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lowrank_bench.reporting.board import Board, Row
from lowrank_bench.reporting.columns import CONTROL
from lowrank_bench.reporting.labels import place_labels
from lowrank_bench.reporting.leaderboard import setting_text
from lowrank_bench.reporting.pareto import DENSE
from lowrank_bench.reporting.styles import RC, method_style, scale_points, scale_ratios

PANELS_PER_LINE = 3

_Fills = dict[tuple[str, str], str]
"""How markers are filled, by method and options: colour and shape belong to the method alone."""
_Panel = Callable[[Axes, Board, list[Row], _Fills], None]


def draw_loss(board: Board) -> Figure:
    """Loss of top-1 against measured speedup with the Pareto front, a panel per setting; its points are labelled."""
    return _draw(
        board,
        _loss_panel,
        "Accuracy loss against measured speedup",
        x="measured speedup, dense over compressed (→ faster)",
        y="top-1 loss after tuning,\npoints (↓ better)",
    )


def draw_macs(board: Board) -> Figure:
    """Measured speedup against the ratio of MACs, a panel per setting; on the diagonal, saved MACs are saved time."""
    return _draw(
        board,
        _macs_panel,
        "Measured speedup against the ratio of MACs",
        x="MACs, dense over compressed",
        y="measured speedup",
    )


FIGURES: dict[str, Callable[[Board], Figure]] = {"loss": draw_loss, "macs": draw_macs}
"""By the name that their files carry."""


def encode(figure: Figure, form: str) -> bytes:
    """The figure as "png" or "svg": the same bytes whenever it is drawn from the same records by the same packages."""
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format=form, dpi=160, metadata={"svg": {"Date": None}}.get(form, {"Software": None}))
    return buffer.getvalue()


def _draw(board: Board, panel: _Panel, title: str, x: str, y: str) -> Figure:
    settings = board.settings
    columns = min(PANELS_PER_LINE, len(settings))
    lines = math.ceil(len(settings) / columns)
    fills = _fills(board)
    with sns.axes_style("whitegrid"), sns.plotting_context("paper", font_scale=1.15), mpl.rc_context(RC):
        figure = Figure(figsize=(3.4 * columns + 2.6, 3.1 * lines + 1.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = [*figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat]
        for number, (axes, setting) in enumerate(zip(panels, settings, strict=False)):
            rows = [*board.in_setting(setting).itertuples(index=False)]
            panel(axes, board, rows, fills)
            axes.set_title(setting_text(*setting))
            axes.tick_params(labelbottom=number + columns >= len(settings))
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
        figure.suptitle(f"{title}\n{board.name}", fontsize="large")
        figure.supxlabel(f"{x}\n{_note(board)}", fontsize="medium")
        figure.supylabel(y, fontsize="medium")
        figure.legend(handles=_legend(fills), loc="outside right upper", frameon=False)
        if panel is _loss_panel:
            figure.draw_without_rendering()  # labels are placed where the layout has put the points
            for axes, setting in zip(panels, settings, strict=False):
                rows = [
                    row for row in board.in_setting(setting).itertuples(index=False) if not math.isnan(row.top1_drop)
                ]
                points = [(row.speedup, row.top1_drop) for row in rows]
                place_labels(axes, points, [row.target if row.pareto else "" for row in rows])
    return figure


def _loss_panel(axes: Axes, board: Board, rows: list[Row], fills: _Fills) -> None:
    known = board.rows[board.rows["top1_drop"].notna()]
    scale_ratios(axes, "x", list(known["speedup"]), [*known["speedup_low"], *known["speedup_high"]])
    scale_points(axes, list(known["top1_drop"]))
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.axhline(board.max_loss, color="0.4", linewidth=0.8, linestyle=":")
    front = sorted([(row.speedup, row.top1_drop) for row in rows if row.pareto])
    if not any(speedup >= 1 and loss <= 0 for speedup, loss in front):
        front = sorted([*front, DENSE])
    axes.plot(*zip(*front, strict=True), color="0.6", linewidth=1, drawstyle="steps-pre", zorder=1)
    for row in rows:
        sides = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
        ends = [[row.top1_drop - row.top1_drop_low], [row.top1_drop_high - row.top1_drop]]
        axes.errorbar(row.speedup, row.top1_drop, xerr=sides, yerr=ends, **_look(row.method, row.options, fills))


def _macs_panel(axes: Axes, board: Board, rows: list[Row], fills: _Fills) -> None:
    every = board.rows
    scale_ratios(axes, "x", list(every["macs_ratio"].dropna()))
    scale_ratios(axes, "y", list(every["speedup"]), [*every["speedup_low"], *every["speedup_high"]])
    axes.axline((1, 1), (2, 2), color="0.6", linewidth=1, linestyle="--", zorder=1)
    axes.axhline(1, color="0.4", linewidth=0.8)
    for row in rows:
        sides = [[row.speedup - row.speedup_low], [row.speedup_high - row.speedup]]
        axes.errorbar(row.macs_ratio, row.speedup, yerr=sides, **_look(row.method, row.options, fills))


def _fills(board: Board) -> _Fills:
    """A fill for each variant of a method, in the order of its options."""
    variants = sorted(set(board.rows[["method", "options"]].itertuples(index=False, name=None)))
    fills: _Fills = {}
    for method in dict.fromkeys(method for method, _ in variants):
        kinds = cycle(("full", "none", "left", "right", "top", "bottom"))
        fills |= {variant: next(kinds) for variant in variants if variant[0] == method}
    return fills


def _look(method: str, options: str, fills: _Fills) -> dict[str, Any]:
    colour, marker = method_style(method)
    size = 10 if method == CONTROL else 7
    return {
        "color": colour,
        "marker": marker,
        "fillstyle": fills[method, options],
        "markersize": size,
        "linestyle": "none",
        "markeredgewidth": 1,
        "elinewidth": 1,
    }


def _legend(fills: _Fills) -> list[Line2D]:
    handles = []
    for method, options in fills:
        look = _look(method, options, fills)
        del look["elinewidth"]
        name = f"{method} {options}".strip() + (" (A/A)" if method == CONTROL else "")
        handles.append(Line2D([], [], label=name, **look))
    return handles


def _note(board: Board) -> str:
    """What a reader must know where the picture stands alone."""
    images = board.rows["images"].dropna()
    tested = f"; top-1 on {images.max():,} images" if len(images) else ""
    return f"bars: 95 % intervals{tested}; setting: runtime, threads (t), batch (b)"
