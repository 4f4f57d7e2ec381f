"""A picture of a board: which method is how fast in which runtime."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lowrank_bench.reporting.board import Board, rows_of
from lowrank_bench.reporting.cells import setting_text
from lowrank_bench.reporting.styles import frame_label, heat_axes, paper_style, short, text_width
from lowrank_bench.trial import CONTROL

_PALETTE = "RdBu"  # red to blue, which colour-blind readers tell apart; every cell also has its number


def draw_heat(board: Board) -> Figure:
    """Measured speedup of each method and target (down) in each setting (across), on a logarithmic scale around 1."""
    rows = rows_of(board.rows[board.rows["method"] != CONTROL])
    whats = sorted({(row.method, row.options, row.target) for row in rows})
    settings = board.settings
    values = np.full((len(whats), len(settings)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for row in rows:
        down = whats.index((row.method, row.options, row.target))
        place = down, settings.index((row.runtime, row.threads, row.batch))
        values[place] = np.log2(row.speedup)
        texts[place] = f"{row.speedup:.2f}" + ("≈" if row.verdict == "same" else "")
    reach = max(0.5, float(np.nanmax(np.abs(values))))
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
            cbar_kws={"label": "dense over compressed", "format": FuncFormatter(_ratio)},
        )
        across = [setting_text(*setting) for setting in settings]
        axes.set_xticks(np.arange(len(settings)) + 0.5, across, rotation=30, ha="right")
        axes.set_yticks(np.arange(len(whats)) + 0.5, names)
        for label, (method, *_) in zip(axes.get_yticklabels(), whats, strict=True):
            frame_label(label, method)
        axes.set_title(f"Measured speedup in every runtime\n{board.name}", fontsize="medium", wrap=True)
        axes.set_xlabel("runtime, threads (t), batch (b); ≈ within the noise of 1; grey: no time", fontsize="small")
        figure.draw_without_rendering()  # only then are the colour bar's labels known, and the next drawing has room
    return figure


def _ratio(power: float, _: object) -> str:
    return f"{2**power:.2g}×"
