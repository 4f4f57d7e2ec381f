"""Pictures of a profile: bars of each layer's time, and a roofline."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lowrank_bench.measurement.peak import Peak
from lowrank_bench.measurement.profile import Profile, Side
from lowrank_bench.reporting.boards.cells import setting_text
from lowrank_bench.reporting.figures.labels import Label, place_labels
from lowrank_bench.reporting.figures.styles import method_style, paper_style, wrapped
from lowrank_bench.trial import CONTROL, Trial

_DENSE = method_style(CONTROL)[0]
_REFERENCE = "#E69F00"
_BAR = 0.38  # of the distance between two layers
_WIDTH = 7.5  # inches
_REMARK = "reference: measured peak of GEMM or convolution, and of a large copy; what stays in cache may beat it"


def draw_bars(profile: Profile, trial: Trial) -> Figure:
    """Time of each layer in both models, a line on to its p90, and the reference as a line across the bar."""
    with paper_style():
        layers = profile.layers
        figure = Figure(figsize=(_WIDTH, 2.2 + 0.42 * len(layers)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        kinds = (("dense", _DENSE, -_BAR / 2), (trial.method, method_style(trial.method)[0], _BAR / 2))
        for (name, colour, shift), sides in zip(kinds, _sides(profile), strict=True):
            places = [number + shift for number in range(len(sides))]
            axes.barh(places, [side.ms for side in sides], _BAR, color=colour, label=name)
            axes.hlines(places, [side.ms for side in sides], [side.p90_ms for side in sides], color=colour, linewidth=1)
            ends = ([place - _BAR / 2 for place in places], [place + _BAR / 2 for place in places])
            axes.vlines([side.limit_ms for side in sides], *ends, color=_REFERENCE, linewidth=2)
        axes.plot([], [], color=_REFERENCE, linewidth=2, label="reference")
        axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"median time of a call, ms; thin line: to its 90th percentile\n{_REMARK}", fontsize="small")
        axes.grid(False, axis="y")
        figure.legend(frameon=False, loc="outside lower center", ncols=3)
        figure.suptitle(_title("Time of each layer", profile, trial), fontsize="medium")
    return figure


def draw_roofline(profile: Profile, trial: Trial) -> Figure:
    """Speed against arithmetic intensity of every layer, dense and compressed, beside the peaks that were measured."""
    with paper_style():
        figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        kinds = (("dense", _DENSE, "o"), (trial.method, *method_style(trial.method)))
        both = _sides(profile)
        for ours, theirs in zip(*both, strict=True):
            axes.plot(*_points([ours, theirs]), color="0.8", linewidth=0.8, zorder=1)
        for (name, colour, marker), sides in zip(kinds, both, strict=True):
            axes.plot(*_points(sides), linestyle="none", color=colour, marker=marker, label=name)
        every = [side for sides in both for side in sides]
        _draw_reference(axes, profile.peak, [side.intensity for side in every])
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"arithmetic intensity, FLOP per byte moved at least\n{_REMARK}", fontsize="small")
        axes.set_ylabel("measured speed, GFLOP/s")
        figure.legend(frameon=False, loc="outside lower center", ncols=3)
        figure.suptitle(_title("Roofline", profile, trial), fontsize="medium")
        figure.draw_without_rendering()  # text is placed where the layout has put the points
        dense = zip(profile.layers, both[0], strict=True)
        labels = [Label(side.intensity, side.gflops, layer.name) for layer, side in dense]
        place_labels(axes, labels + [Label(side.intensity, side.gflops, "") for side in both[1]])
    return figure


FIGURES: dict[str, Callable[[Profile, Trial], Figure]] = {"profile": draw_bars, "roofline": draw_roofline}
"""By the name with which their files begin."""


def _sides(profile: Profile) -> tuple[list[Side], list[Side]]:
    return [layer.dense for layer in profile.layers], [layer.compressed for layer in profile.layers]


def _points(sides: list[Side]) -> tuple[list[float], list[float]]:
    return [side.intensity for side in sides], [side.gflops for side in sides]


def _draw_reference(axes: Axes, peak: Peak, intensities: list[float]) -> None:
    ridge = peak.gflops / peak.gbytes
    low, high = min([*intensities, ridge]) / 1.5, max([*intensities, ridge]) * 1.5
    roof = ([low, ridge, high], [low * peak.gbytes, peak.gflops, peak.gflops])
    label = f"reference: {peak.gflops:.0f} GFLOP/s, {peak.gbytes:.1f} GB/s"
    axes.plot(*roof, color=_REFERENCE, linewidth=2, label=label, zorder=0)


def _title(what: str, profile: Profile, trial: Trial) -> str:
    setting = setting_text(profile.runtime, profile.threads, profile.batch)
    lines = (what, str(trial), f"{setting} on {profile.environment.machine}, {profile.finished[:10]}")
    return "\n".join(wrapped(line, _WIDTH) for line in lines)
