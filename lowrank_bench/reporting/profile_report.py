"""A profile as people and programs read it: a table, its numbers, bars of each layer's time, and a roofline."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.text import Text

from lowrank_bench.measurement.profile import LayerProfile, Profile
from lowrank_bench.reporting.boards.cells import interval_text, setting_text
from lowrank_bench.reporting.figures.profile_figures import FIGURES
from lowrank_bench.reporting.figures.scatter import encode
from lowrank_bench.reporting.files import plain_name, replace_file
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.terminal import TerminalTable
from lowrank_bench.trial import Trial

_HEADINGS = (
    "Layer", "p50", "p90", "Share", "Speedup [95 %]", "Pairs", "MAC bound", "Realised", "MACs", "Bytes",
    "Over reference",
)  # fmt: skip


class SavedProfile(BaseModel):
    """A profile on disk: of which trial, by its key and in full, and what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    trial: Trial
    profile: Profile


def profile_table(profile: Profile) -> TerminalTable:
    """Each layer's time beside its reference, dense against compressed; then their sum, and the network."""
    table = TerminalTable(*_HEADINGS, ruled=True)
    *layers, together, network = _rows(profile)
    for row in layers:
        table.add_row(*map(Text, row))
    table.add_section()
    for row in (together, network):
        table.add_row(*map(Text, row))
    return table


def profile_facts(profile: Profile) -> str:
    """Where and when it was measured, and what the columns of the table rest on."""
    peak = profile.peak
    return (
        f"{setting_text(profile.runtime, profile.threads, profile.batch)} on {profile.environment.machine}, "
        f"{profile.finished[:10]}. Dense → compressed, in ms: the median time of a call, its 90th percentile (short "
        "calls count by the means of loops), and what MACs and bytes moved take at the measured peaks, "
        f"{peak.gflops:.0f} GFLOP/s, {peak.gbytes:.1f} GB/s: the faster of GEMM and convolution, and a large copy. The "
        "larger of both, summed over the stages, is the reference; a layer whose data stay in cache may beat it. MAC "
        "bound: of the speedup. Share: of the dense network's time. Every layer is timed on its own; what lies between "
        "layers is in the network's row only."
    )


def profile_markdown(saved: SavedProfile) -> str:
    """The table with its facts, machine and versions."""
    profile, environment = saved.profile, saved.profile.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items() if version)
    load = "not visible" if environment.load is None else f"{environment.load:.2f}"
    here = f"{environment.cpu}, {environment.cores} cores, {environment.os}, Python {environment.python}, {packages}"
    parts = [
        f"# Profile of {escape(str(saved.trial))}",
        escape(f"Trial {saved.key}. {profile_facts(profile)}"),
        markdown_table(_HEADINGS, _rows(profile)),
        bullets([("Environment", here), ("Load at the start", load), ("Finished", profile.finished)]),
    ]
    return "\n\n".join(parts) + "\n"


def write_profile(profile: Profile, trial: Trial, folder: Path) -> list[Path]:
    """Write the numbers as json, their table as md, and bars and roofline as png and svg, under ``folder / figures``;
    returns their paths. Raises InvalidRecord where it cannot be written.
    """
    saved = SavedProfile(key=trial.key, trial=trial, profile=profile)
    setting = f"{profile.runtime}-{profile.threads}t-b{profile.batch}"
    name = f"{plain_name(trial.model)}-{trial.method}-{trial.key}-{setting}"
    files = {f"profile-{name}.json": (saved.model_dump_json(indent=1) + "\n").encode()}
    files[f"profile-{name}.md"] = profile_markdown(saved).encode()
    for kind, draw in FIGURES.items():
        figure = draw(profile, trial)
        files |= {f"{kind}-{name}.{form}": file for form, file in encode(figure).items()}
    return [replace_file(folder / "figures" / file, data) for file, data in files.items()]


def _rows(profile: Profile) -> list[list[str]]:
    """The layers', that of their sum, and the network's."""
    whole = profile.network.dense.ms
    ours, theirs = (
        sum(side.ms for side in sides)
        for sides in zip(*((one.dense, one.compressed) for one in profile.layers), strict=True)
    )
    together = ["sum of layers", _ms(ours, theirs, 3), "", f"{ours / whole:.0%}", f"{ours / theirs:.2f}"]
    together += [""] * (len(_HEADINGS) - len(together))
    return [*(_cells(layer, whole) for layer in profile.layers), together, _cells(profile.network, whole)]


def _cells(layer: LayerProfile, whole_ms: float) -> list[str]:
    ours, theirs = layer.dense, layer.compressed
    return [
        layer.name,
        _ms(ours.ms, theirs.ms, 3),
        _ms(ours.p90_ms, theirs.p90_ms, 3),
        f"{ours.ms / whole_ms:.0%}",
        interval_text(layer.ratio, layer.low, layer.high, ".2f"),
        str(layer.pairs),
        f"{layer.macs_ratio:.2f}",
        f"{layer.ratio / layer.macs_ratio:.0%}",
        _ms(ours.mac_ms, theirs.mac_ms, 2),
        _ms(ours.traffic_ms, theirs.traffic_ms, 2),
        f"{ours.ms / ours.limit_ms:.1f} → {theirs.ms / theirs.limit_ms:.1f}",
    ]


def _ms(dense: float, compressed: float, digits: int) -> str:
    """Both in so many digits, or in whole ms where those have more."""
    return " → ".join(f"{ms:.0f}" if ms >= 10**digits else f"{ms:.{digits}g}" for ms in (dense, compressed))
