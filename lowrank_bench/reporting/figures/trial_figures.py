"""A picture of how the models of a board were fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean, quantiles
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.boards.board import Board
from lowrank_bench.reporting.figures.styles import method_style, paper_style, short, text_width, wrapped
from lowrank_bench.trial import CONTROL

_TITLE = 36  # characters above a panel
_LINES = ("-", "--", "-.", ":")  # for a method's options: colour and marker belong to the method alone


def draw_tuning(board: Board, trials: Mapping[str, TrialRecord]) -> Figure | None:
    """Validation top-1 after each epoch of fine-tuning, a panel per target with the dense control in each: mean over
    seeds, with the band from the lowest to the highest. Means far below the others are left out of the scale, and their
    number is written. None where nothing was tuned.
    """
    curves = {what: found for what, records in board.models(trials).items() if (found := _curve(records))}
    targets = sorted({target for method, _, target in curves if method != CONTROL})
    if not targets:
        return None
    columns = min(3, len(targets))
    lines = math.ceil(len(targets) / columns)
    variants = sorted({what[:2] for what in curves})
    bottom, top = _useful([fmean(epoch) for curve in curves.values() for epoch in curve])
    with paper_style():
        side = max(2.6, 0.8 + text_width(" ".join(what) for what in variants))
        figure = Figure(figsize=(3.4 * columns + side, 3.1 * lines + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        panels = [*figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat]
        for number, (axes, target) in enumerate(zip(panels, targets, strict=False)):
            here = {what: curve for what, curve in curves.items() if what[2] == target or what[0] == CONTROL}
            for (method, options, _), curve in here.items():
                _draw_curve(axes, curve, _look(method, options, variants))
            _note_lower(axes, [fmean(epoch) for curve in here.values() for epoch in curve], bottom)
            axes.set_ylim(bottom, top)
            axes.set_title(short(target, _TITLE), fontsize="medium")
            axes.set_ylabel("validation top-1, %" if number % columns == 0 else "")
            axes.set_xlabel("epoch" if number + columns >= len(targets) else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelbottom=number + columns >= len(targets))
        for axes in panels[len(targets) :]:
            axes.set_axis_off()
        shown = [Line2D([], [], label=" ".join(filter(None, what)), **_look(*what, variants)) for what in variants]
        figure.legend(handles=shown, loc="outside right upper", frameon=False)
        name = wrapped(board.name, figure.get_size_inches()[0] / 1.2)
        title = f"Fine-tuning: mean over seeds, band from lowest to highest\n{name}"
        figure.suptitle(title, fontsize="large")
    return figure


def _curve(records: Sequence[TrialRecord]) -> list[list[float]]:
    """For each epoch the top-1 of every seed."""
    seeds = [
        [epoch.validation_top1 for epoch in record.quality.epochs if epoch.validation_top1 is not None]
        for record in records
        if record.quality
    ]
    return [[value for value in epoch if value is not None] for epoch in zip_longest(*seeds)]


def _useful(means: Sequence[float]) -> tuple[float, float]:
    """Ends of a scale in which most means are told apart: from the best down to three times as far as the lower
    quartile, or to the lowest; two points at least.
    """
    best, lowest = max(means), min(means)
    quartile = quantiles(means, n=4, method="inclusive")[0] if len(means) > 1 else lowest
    low = min(max(lowest, best - 3 * (best - quartile)), best - 2)
    margin = 0.06 * (best - low)
    return low - margin, best + margin


def _note_lower(axes: Axes, means: Iterable[float], bottom: float) -> None:
    """How many of a panel's means lie below its scale, and how far."""
    if lower := [mean for mean in means if mean < bottom]:
        text = f"↓ {len(lower)} point{'s' * (len(lower) > 1)} below, down to {min(lower):.1f}"
        axes.text(0.03, 0.03, text, transform=axes.transAxes, fontsize="small", color="0.3")


def _draw_curve(axes: Axes, curve: list[list[float]], look: dict[str, Any]) -> None:
    epochs = range(1, len(curve) + 1)
    axes.plot(epochs, [fmean(values) for values in curve], **look)
    low, high = [min(values) for values in curve], [max(values) for values in curve]
    axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15)


def _look(method: str, options: str, variants: Sequence[tuple[str, str]]) -> dict[str, Any]:
    colour, marker = method_style(method)
    of_method = [other for name, other in variants if name == method]
    line = _LINES[of_method.index(options) % len(_LINES)]
    return {"color": colour, "marker": marker, "markersize": 4, "linestyle": line, "linewidth": 1.4}
