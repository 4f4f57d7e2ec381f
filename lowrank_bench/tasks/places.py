"""Where data sets are looked for on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lowrank_bench.errors import DataMissing

DATA_VARIABLE = "LOWRANK_BENCH_DATA"
SYSTEM = Path("/usr/share/datasets")  # where Debian's dataset packages put theirs


def spelled_path(path: Path | str) -> str:
    """A path as every spelling of it comes out: relative to the working folder where it is inside, else absolute; ``~``
    is the user's home. Links are not followed.
    """
    whole, here = Path(os.path.abspath(os.path.expanduser(path))), Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def find_folder(task: str, names: tuple[str, ...], holds: Callable[[Path], bool], remedy: str) -> Path:
    """The first folder that ``holds`` the data: that of LOWRANK_BENCH_DATA, one of ``names`` in it, or one of ``names``
    below the system's data sets. Raises DataMissing, with the places looked at and the ``remedy``.
    """
    named = os.environ.get(DATA_VARIABLE)
    roots = [] if not named else [Path(named), *(Path(named) / name for name in names)]
    places = [*roots, *(SYSTEM / name for name in names)]
    for place in places:
        if holds(place):
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataMissing(f"the data of task {task!r} are in none of {looked}: {remedy}")
