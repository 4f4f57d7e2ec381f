"""A profile as people read it: a table for the terminal, bars of each layer's time, and a roofline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich import box
from rich.table import Table
from rich.text import Text

from lowrank_bench.measurement.peak import Peak
from lowrank_bench.measurement.profile import LayerProfile, Profile, Side
from lowrank_bench.reporting.cells import interval_text, setting_text
from lowrank_bench.reporting.figures import encode
from lowrank_bench.reporting.files import plain_name, replace_file
from lowrank_bench.reporting.labels import Label, place_labels
from lowrank_bench.reporting.styles import method_style, paper_style
from lowrank_bench.trial import CONTROL, Trial

_DENSE = method_style(CONTROL)[0]
_BAR = 0.38  # of the distance between two layers


def profile_table(profile: Profile) -> Table:
    """Each layer's time beside its limit, dense against compressed; then their sum, and the network."""
    headings = ("Layer", "Time", "Share", "Speedup [95 %]", "MAC bound", "Realised", "MACs", "Bytes", "Over limit")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")  # in a narrow terminal a number wraps, it is not cut
    whole = profile.network.dense.ms
    for layer in profile.layers:
        table.add_row(*map(Text, _cells(layer, whole)))
    ours, theirs = (sum(side.ms for side in sides) for sides in _sides(profile))
    table.add_section()
    table.add_row("sum of layers", f"{ours:.3g} → {theirs:.3g}", f"{ours / whole:.0%}", f"{ours / theirs:.2f}")
    table.add_row(*map(Text, _cells(profile.network, whole)))
    return table


def profile_facts(profile: Profile) -> str:
    """What the bounds in the table rest on."""
    peak = profile.peak
    return (
        f"{setting_text(profile.runtime, profile.threads, profile.batch)}. Measured peak: {peak.gflops:.0f} GFLOP/s, "
        f"{peak.gbytes:.1f} GB/s. Dense → compressed, in ms: the time, and at this peak the bounds by MACs and bytes "
        "moved, of which the limit of a stage is the larger. MAC bound: of the speedup. Share: of the dense network's "
        "time. Every layer is timed on its own; what lies between layers is in the network's row only."
    )


def write_profile_figures(profile: Profile, trial: Trial, folder: Path) -> list[Path]:
    """Write bars and roofline, as png and svg, under ``folder / figures``; returns their paths. Raises InvalidRecord
    where it cannot be written.
    """
    setting = f"{profile.runtime}-{profile.threads}t-b{profile.batch}"
    paths = []
    for kind, draw in FIGURES.items():
        figure = draw(profile, trial)
        for form in ("png", "svg"):
            path = folder / "figures" / f"{kind}-{plain_name(trial.model)}-{trial.method}-{trial.key}-{setting}.{form}"
            paths.append(replace_file(path, encode(figure, form)))
    return paths


def draw_bars(profile: Profile, trial: Trial) -> Figure:
    """Time of each layer in both models, with its limit as a line across the bar."""
    with paper_style():
        layers = profile.layers
        figure = Figure(figsize=(7.5, 1.6 + 0.42 * len(layers)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        kinds = (("dense", _DENSE, -_BAR / 2), (trial.method, method_style(trial.method)[0], _BAR / 2))
        for (name, colour, shift), sides in zip(kinds, _sides(profile), strict=True):
            places = [number + shift for number in range(len(sides))]
            axes.barh(places, [side.ms for side in sides], _BAR, color=colour, label=name)
            limits = [side.limit_ms for side in sides]
            ends = ([place - _BAR / 2 for place in places], [place + _BAR / 2 for place in places])
            axes.vlines(limits, *ends, color="#E69F00", linewidth=2)
        axes.plot([], [], color="#E69F00", linewidth=2, label="limit (roofline)")
        axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
        axes.invert_yaxis()
        axes.set_xlabel("median time of a call, ms")
        axes.grid(False, axis="y")
        figure.legend(frameon=False, loc="outside lower center", ncols=3)
        axes.set_title(f"Time of each layer\n{_title(profile, trial)}", fontsize="medium", wrap=True)
    return figure


def draw_roofline(profile: Profile, trial: Trial) -> Figure:
    """Speed against arithmetic intensity of every layer, dense and compressed, under the roof that was measured."""
    with paper_style():
        figure = Figure(figsize=(7.5, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        kinds = (("dense", _DENSE, "o"), (trial.method, *method_style(trial.method)))
        both = _sides(profile)
        for ours, theirs in zip(*both, strict=True):
            axes.plot(*_points([ours, theirs]), color="0.8", linewidth=0.8, zorder=1)
        for (name, colour, marker), sides in zip(kinds, both, strict=True):
            axes.plot(*_points(sides), linestyle="none", color=colour, marker=marker, label=name)
        every = [side for sides in both for side in sides]
        _draw_roof(axes, profile.peak, [side.intensity for side in every])
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("arithmetic intensity, FLOP per byte moved at least")
        axes.set_ylabel("measured speed, GFLOP/s")
        figure.legend(frameon=False, loc="outside lower center", ncols=3)
        axes.set_title(f"Roofline\n{_title(profile, trial)}", fontsize="medium", wrap=True)
        figure.draw_without_rendering()  # text is placed where the layout has put the points
        dense = zip(profile.layers, both[0], strict=True)
        labels = [Label(side.intensity, side.gflops, layer.name) for layer, side in dense]
        place_labels(axes, labels + [Label(side.intensity, side.gflops, "") for side in both[1]])
    return figure


FIGURES: dict[str, Callable[[Profile, Trial], Figure]] = {"profile": draw_bars, "roofline": draw_roofline}
"""By the name with which their files begin."""


def _cells(layer: LayerProfile, whole_ms: float) -> list[str]:
    ours, theirs = layer.dense, layer.compressed
    return [
        layer.name,
        f"{ours.ms:.3g} → {theirs.ms:.3g}",
        f"{ours.ms / whole_ms:.0%}",
        interval_text(layer.ratio, layer.low, layer.high, ".2f"),
        f"{layer.macs_ratio:.2f}",
        f"{layer.ratio / layer.macs_ratio:.0%}",
        f"{ours.mac_ms:.2g} → {theirs.mac_ms:.2g}",
        f"{ours.traffic_ms:.2g} → {theirs.traffic_ms:.2g}",
        f"{ours.ms / ours.limit_ms:.1f} → {theirs.ms / theirs.limit_ms:.1f}",
    ]


def _sides(profile: Profile) -> tuple[list[Side], list[Side]]:
    return [layer.dense for layer in profile.layers], [layer.compressed for layer in profile.layers]


def _points(sides: list[Side]) -> tuple[list[float], list[float]]:
    return [side.intensity for side in sides], [side.gflops for side in sides]


def _draw_roof(axes: Axes, peak: Peak, intensities: list[float]) -> None:
    ridge = peak.gflops / peak.gbytes
    low, high = min([*intensities, ridge]) / 1.5, max([*intensities, ridge]) * 1.5
    roof = ([low, ridge, high], [low * peak.gbytes, peak.gflops, peak.gflops])
    label = f"measured peak: {peak.gflops:.0f} GFLOP/s, {peak.gbytes:.1f} GB/s"
    axes.plot(*roof, color="#E69F00", linewidth=2, label=label, zorder=0)


def _title(profile: Profile, trial: Trial) -> str:
    return f"{trial} on {setting_text(profile.runtime, profile.threads, profile.batch)}"
