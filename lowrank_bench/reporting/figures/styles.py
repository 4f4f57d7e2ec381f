"""How figures look: one colour and marker per method everywhere, and ticks that read as ratios and points."""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Okabe and Ito's colours, which colour-blind readers tell apart; without their yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LONGEST_LABEL = 64
OTHER_MARKERS = ("p", "h", "<", ">", "d", "8")
STYLES = {
    "identity": ("#000000", "*"),
    "tucker": (COLOURS[0], "o"),
    "jaderberg": (COLOURS[1], "s"),
    "channel_svd": (COLOURS[2], "^"),
    "cp_nls": (COLOURS[3], "D"),
    "denton": (COLOURS[4], "v"),
    "tt_conv": (COLOURS[5], "P"),
    "lowrank_training": ("#882255", "X"),  # these three are Tol's
    "depthwise_separable": ("#999933", "p"),
    "narrow": ("#332288", "h"),
}
RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the one that comes with matplotlib: the same picture on every machine
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text that can be read, searched and selected, in a third of the bytes
    "svg.hashsalt": "lowrank-bench",  # the same ids in every run
}

_RATIO_TICKS = (
    (1.8, tuple(tenths / 10 for tenths in range(1, 100))),
    (8, (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)),
    (math.inf, tuple(2.0**power for power in range(-10, 11))),
)
_POINT_TICKS = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100)
_LINEAR_POINTS = 2.0


def paper_style() -> AbstractContextManager[None]:
    """The look of every figure, within a ``with``."""
    looks: dict[Any, Any] = {**sns.axes_style("whitegrid"), **sns.plotting_context("paper", font_scale=1.15), **RC}
    return mpl.rc_context(looks)


def heat_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, or more where title and colour bar need them; its axes are grey where a heat map has
    no value.
    """
    figure = Figure(figsize=(max(width, 6.5), max(height, 4.5)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    axes.grid(visible=False)
    return figure, axes


def short(text: str, longest: int = LONGEST_LABEL) -> str:
    """As it stands, or its two ends where it is longer than a label may be: the tables have the whole."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def wrapped(text: str, inches: float) -> str:
    """In lines that fit into so many inches, in the size of titles; of matplotlib's own wrapping, the layout of the
    figure knows nothing.
    """
    return textwrap.fill(text, max(20, int(inches / 0.09)), break_on_hyphens=False)


def text_width(texts: Iterable[str]) -> float:
    """Inches that the longest of these texts takes at most, in the size of labels and legends."""
    return 0.09 * max(map(len, texts), default=0)


def method_style(method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every figure; where the table lacks it, its name decides."""
    if method in STYLES:
        return STYLES[method]
    digest = hashlib.sha256(method.encode()).digest()
    return COLOURS[digest[0] % len(COLOURS)], OTHER_MARKERS[digest[1] % len(OTHER_MARKERS)]


def frame_label(label: Text, method: str) -> None:
    """Put a frame of a method's colour around a text, which stays dark: some of the colours are too light to read."""
    label.set_bbox({"facecolor": "none", "edgecolor": method_style(method)[0], "boxstyle": "round,pad=0.2"})


def scale_ratios(axes: Axes, which: Literal["x", "y"], values: Sequence[float], ends: Sequence[float] = ()) -> None:
    """Give a logarithmic scale with 1, every value, and the ends of intervals as far as values stay legible."""
    low, high = min([1, *values]), max([1, *values])
    low = max(low / 1.5, min([low, *ends])) / 1.1
    high = min(high * 1.5, max([high, *ends])) * 1.1
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    _set_ticks(axes.xaxis if which == "x" else axes.yaxis, ratio_ticks(low, high), "{:g}×")


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios between two, as many as stay legible."""
    ticks = next(ticks for widest, ticks in _RATIO_TICKS if high / low <= widest)
    return [tick for tick in ticks if low <= tick <= high]


def scale_points(axes: Axes, values: Sequence[float]) -> None:
    """Give the y axis a scale of points: where a model lost more than 5, logarithmic beyond 2, so that it does not
    flatten the others.
    """
    if max([0, *values]) > 5:
        axes.set_yscale("symlog", linthresh=_LINEAR_POINTS, linscale=2)
        _set_ticks(axes.yaxis, _POINT_TICKS, "{:g}")


def _set_ticks(axis: Axis, ticks: Sequence[float], form: str) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
