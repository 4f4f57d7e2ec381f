"""What the campaigns of tests/slow found, as one page: each campaign writes its own part of it, and nobody by hand.

With LOWRANK_BENCH_FAULTS_PAGE set, the page is the file that it names:
LOWRANK_BENCH_FAULTS_PAGE=results/published/faults.md pytest tests/slow/test_kills.py --timeout 0
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.reporting.markdown import markdown_table

PAGE = "LOWRANK_BENCH_FAULTS_PAGE"
PACKAGES = ("torch", "filelock", "distributed", "hypothesis")
PARTS = {
    "Killed runs, -j 1": "test_kills.py",
    "Killed runs, -j 2": "test_kills.py",
    "Faults": "test_faults.py",
    "Hostile input": "test_fuzz_readers.py",
    "Soak": "test_soak.py",
}
HEAD = f"""# Faults tried, and what was lost

Each part is written by its own campaign: `{PAGE}=results/published/faults.md pytest tests/slow/FILE --timeout 0`.
A campaign in which any test failed writes nothing.
"""


@contextmanager
def campaign(request: pytest.FixtureRequest, title: str, columns: Sequence[str]) -> Iterator[list[tuple[str, ...]]]:
    """Rows to fill; at the end they are printed, and take their part's place on the page where all tests passed."""
    rows: list[tuple[str, ...]] = []
    failed, start = request.session.testsfailed, time.monotonic()
    yield rows
    minutes, versions = (time.monotonic() - start) / 60, [f"{name} {version(name)}" for name in PACKAGES]
    machine = fingerprint()
    text = (
        f"## {title}\n\n{markdown_table(columns, rows)}\n\n"
        f"By `tests/slow/{PARTS[title]}` on {datetime.now(UTC):%Y-%m-%d} in {minutes:.0f} minutes: {machine.machine} "
        f"(load {machine.load} at the end), {machine.os}, Python {machine.python}, {', '.join(versions)}.\n"
    )
    print(f"\n{text}")
    if (page := os.environ.get(PAGE)) and rows and request.session.testsfailed == failed:
        _put(Path(page), title, text)


def _put(page: Path, title: str, text: str) -> None:
    """Campaigns may end at the same time."""
    with FileLock(Path(tempfile.gettempdir()) / f"{page.name}.lock"):
        parts = re.split(r"^(?=## )", page.read_text() if page.exists() else "", flags=re.MULTILINE)[1:]
        found = {part.partition("\n")[0].removeprefix("## "): part.rstrip() + "\n" for part in parts} | {title: text}
        page.write_text("\n".join([HEAD, *(found[each] for each in PARTS if each in found)]))
