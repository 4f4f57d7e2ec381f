"""What comes with the package as TOML: sweeps and papers, by name."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

SWEEPS = files("lowrank_bench.running") / "sweeps"
PAPERS = files("lowrank_bench.reporting") / "papers"


def sweep_names() -> list[str]:
    """The sweeps that come with the package."""
    return _names(SWEEPS)


def paper_names() -> list[str]:
    """The papers that come with the package."""
    return _names(PAPERS)


def _names(folder: Traversable) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
