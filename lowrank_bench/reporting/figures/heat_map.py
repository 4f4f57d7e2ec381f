"""A picture of a board: which method is how fast in which runtime."""

from __future__ import annotations

import math

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lowrank_bench.reporting.boards.board import Board, rows_of
from lowrank_bench.reporting.boards.cells import setting_text
from lowrank_bench.reporting.figures.styles import (
    frame_label,
    heat_axes,
    paper_style,
    ratio_ticks,
    short,
    text_width,
    wrapped,
)
from lowrank_bench.reporting.frame.columns import setting_of, what_of
from lowrank_bench.trial import CONTROL

_PALETTE = "RdBu"  # red to blue, which colour-blind readers tell apart; every cell also has its number
_LEAST = 0.1  # powers of 2 that the colour bar shows on each side of 1


def draw_heat(board: Board) -> Figure:
    """Measured speedup of each method and target (down) in each setting (across), on a logarithmic scale around 1, of
    which the colour bar shows what the values reach; what is noise and what is unstable is marked.
    """
    rows = rows_of(board.rows[board.rows["method"] != CONTROL])
    whats = sorted({what_of(row) for row in rows})
    settings = board.settings
    values = np.full((len(whats), len(settings)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for row in rows:
        down = whats.index(what_of(row))
        place = down, settings.index(setting_of(row))
        values[place] = np.log2(row.speedup)
        texts[place] = f"{row.speedup:.2f}{'≈' * (row.verdict == 'same')}{'†' * bool(row.unstable)}"
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    reach = max(0.5, -low, high)
    with paper_style():
        names = [short(" ".join(filter(None, what))) for what in whats]
        width = 2 + text_width(names) + 0.85 * len(settings)
        figure, axes = heat_axes(width, 2.2 + 0.3 * len(whats))
        sns.heatmap(
            values,
            ax=axes,
            annot=texts,
            fmt="",
            cmap=_PALETTE,
            vmin=-reach,
            vmax=reach,
            linewidths=1,
            xticklabels=False,  # seaborn would draw the figure to look at its labels, before there is room for them
            yticklabels=False,
            cbar_kws={"label": "dense over compressed"},
        )
        _scale_bar(figure.axes[1], low, high)
        across = [setting_text(*setting) for setting in settings]
        axes.set_xticks(np.arange(len(settings)) + 0.5, across, rotation=30, ha="right")
        axes.set_yticks(np.arange(len(whats)) + 0.5, names)
        for label, (method, *_) in zip(axes.get_yticklabels(), whats, strict=True):
            frame_label(label, method)
        title = wrapped(board.name, figure.get_size_inches()[0])
        figure.suptitle(f"Measured speedup in every runtime\n{title}", fontsize="medium")
        note = "≈ within the noise of 1; † unstable: its processes disagree; grey: no time"
        axes.set_xlabel(f"runtime, threads (t), batch (b)\n{note}", fontsize="small")
        figure.draw_without_rendering()  # only then are the colour bar's labels known, and the next drawing has room
    return figure


def _scale_bar(bar: Axes, low: float, high: float) -> None:
    """Show of the colours, which are the same on both sides of 1, those between two powers of 2."""
    low, high = min(low, -_LEAST), max(high, _LEAST)
    ticks = ratio_ticks(2**low, 2**high)
    bar.set_ylim(low, high)
    bar.set_yticks([math.log2(tick) for tick in ticks], [f"{tick:g}×" for tick in ticks])
