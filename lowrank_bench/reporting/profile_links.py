"""The profiles that lie beside a report, as it links them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.markdown import escape

_FILE = re.compile(r"(profile|roofline)-[\w.-]+-([0-9a-f]{16})-([\w-]+)\.(svg|md|json)", re.ASCII)
_TEXTS = {
    ("profile", "svg"): "bars",
    ("roofline", "svg"): "roofline",
    ("profile", "md"): "table",
    ("profile", "json"): "numbers",
}
"""By kind and form, in the order in which they are linked; every svg has a png beside it."""


class ProfileLinks(NamedTuple):
    """A profiled trial in its setting, and the files that tell of it: a text and a path from the report's folder."""

    title: str
    links: list[tuple[str, str]]


def profiles_of(folder: Path, trials: Mapping[str, TrialRecord]) -> list[ProfileLinks]:
    """The profiles in ``folder / figures`` whose trials are among the records, by trial and setting."""
    known: dict[tuple[str, str], dict[str, str]] = {}
    for path in sorted((folder / "figures").glob("*-*")):
        found = _FILE.fullmatch(path.name)
        if found and found[2] in trials and (text := _TEXTS.get((found[1], found[4]))):
            title = f"{trials[found[2]].trial}, {found[3]}"
            known.setdefault((title, found[2]), {})[text] = f"figures/{path.name}"
    return [
        ProfileLinks(title, [(text, files[text]) for text in _TEXTS.values() if text in files])
        for (title, _), files in sorted(known.items())
    ]


def profiles_markdown(profiles: Sequence[ProfileLinks]) -> str:
    """A section that links them."""
    lines = [
        f"- {escape(title)}: " + ", ".join(f"[{escape(text)}]({path})" for text, path in links)
        for title, links in profiles
    ]
    return "\n\n".join(["## Profiles", "Where the time goes, layer by layer, one network alone:", "\n".join(lines)])
