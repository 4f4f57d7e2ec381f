"""Pictures of how the models of a board were made: ranks and errors of their layers, and their fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lowrank_bench.record import LayerSize, TrialRecord
from lowrank_bench.reporting.board import Board
from lowrank_bench.reporting.styles import frame_label, heat_axes, method_style, paper_style, short, text_width
from lowrank_bench.trial import CONTROL

_LINES = ("-", "--", "-.", ":")  # for a method's options: colour and marker belong to the method alone

_What = tuple[str, str, str]


def draw_plans(board: Board, trials: Mapping[str, TrialRecord]) -> Figure | None:
    """Ranks of every layer (written) and its relative weight error (colour), a column per method and target, of the
    lowest seed; None where no model has compressed layers.
    """
    plans = {what: found for what, records in _models(board, trials).items() if (found := _layers(records))}
    if not plans:
        return None
    layers = [*dict.fromkeys(layer for plan in plans.values() for layer in plan)]
    errors = np.full((len(layers), len(plans)), np.nan)
    ranks = np.full(errors.shape, "", dtype=object)
    for across, plan in enumerate(plans.values()):
        for layer, size in plan.items():
            place = layers.index(layer), across
            errors[place] = math.nan if size.error is None else size.error
            ranks[place] = "×".join(map(str, size.ranks))
    with paper_style():
        names = [short(" ".join(filter(None, what))) for what in plans]
        slanted = text_width(names)
        width = 2 + max(text_width(layers), 0.9 * slanted) + 0.95 * len(plans)
        height = 2 + 0.5 * slanted + 0.3 * len(layers)
        figure, axes = heat_axes(width, height)
        sns.heatmap(
            errors,
            ax=axes,
            annot=ranks,
            fmt="",
            annot_kws={"fontsize": "x-small"},
            cmap="cividis_r",
            vmin=0,
            vmax=1,
            linewidths=1,
            xticklabels=names,
            yticklabels=layers,
            cbar_kws={"label": "relative error"},
        )
        for down, across in zip(*np.nonzero(np.isnan(errors) & (ranks != "")), strict=True):
            axes.text(across + 0.5, down + 0.5, ranks[down, across], ha="center", va="center", fontsize="x-small")
        axes.tick_params(axis="y", rotation=0)
        axes.tick_params(axis="x", rotation=30)
        for label, (method, *_) in zip(axes.get_xticklabels(), plans, strict=True):
            label.set_horizontalalignment("right")
            frame_label(label, method)
        axes.set_xlabel("written: the ranks; grey: stayed dense, or the error is not known", fontsize="small")
        axes.set_title(
            f"Ranks and relative weight errors (Frobenius) of the layers\n{board.name}", fontsize="medium", wrap=True
        )
    return figure


def draw_tuning(board: Board, trials: Mapping[str, TrialRecord]) -> Figure | None:
    """Validation top-1 after each epoch of fine-tuning, a panel per target with the dense control in each: mean over
    seeds, with the band from the lowest to the highest. None where nothing was tuned.
    """
    curves = {what: found for what, records in _models(board, trials).items() if (found := _curve(records))}
    targets = sorted({target for method, _, target in curves if method != CONTROL})
    if not targets:
        return None
    columns = min(3, len(targets))
    lines = math.ceil(len(targets) / columns)
    variants = sorted({what[:2] for what in curves})
    with paper_style():
        side = max(2.6, 0.8 + text_width(" ".join(what) for what in variants))
        figure = Figure(figsize=(3.4 * columns + side, 3.1 * lines + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        panels = [*figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat]
        for number, (axes, target) in enumerate(zip(panels, targets, strict=False)):
            for (method, options, of), curve in curves.items():
                if of == target or method == CONTROL:
                    _draw_curve(axes, curve, _look(method, options, variants))
            axes.set_title(short(target))
            axes.set_ylabel("validation top-1, %" if number % columns == 0 else "")
            axes.set_xlabel("epoch" if number + columns >= len(targets) else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelbottom=number + columns >= len(targets))
        for axes in panels[len(targets) :]:
            axes.set_axis_off()
        shown = [Line2D([], [], label=" ".join(filter(None, what)), **_look(*what, variants)) for what in variants]
        figure.legend(handles=shown, loc="outside right upper", frameon=False)
        figure.suptitle(
            f"Fine-tuning: mean over seeds, band from lowest to highest\n{board.name}", fontsize="large", wrap=True
        )
    return figure


def _models(board: Board, trials: Mapping[str, TrialRecord]) -> dict[_What, list[TrialRecord]]:
    """The trials of a board that gave a model, by method, options and target; the lowest seed first."""
    known = board.records[["method", "options", "target", "trial"]].itertuples(index=False, name=None)
    found: dict[_What, list[TrialRecord]] = {}
    for method, options, target, key in sorted(set(known)):
        if key in trials and trials[key].size is not None:
            found.setdefault((method, options, target), []).append(trials[key])
    return {what: sorted(records, key=lambda record: record.trial.seed) for what, records in found.items()}


def _layers(records: Sequence[TrialRecord]) -> Mapping[str, LayerSize]:
    return records[0].size.layers if records[0].size else {}


def _curve(records: Sequence[TrialRecord]) -> list[list[float]]:
    """For each epoch the top-1 of every seed."""
    seeds = [
        [epoch.validation_top1 for epoch in record.quality.epochs if epoch.validation_top1 is not None]
        for record in records
        if record.quality
    ]
    return [[value for value in epoch if value is not None] for epoch in zip_longest(*seeds)]


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
