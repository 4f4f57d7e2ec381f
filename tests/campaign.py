"""What the campaigns of tests/slow found, as one page: each test writes its own row of it, and nobody by hand.

With LOWRANK_BENCH_FAULTS_PAGE set, the page is the file that it names:
LOWRANK_BENCH_FAULTS_PAGE=results/published/faults.md pytest tests/slow/test_kills.py --timeout 0
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.reporting.markdown import markdown_table

PAGE = "LOWRANK_BENCH_FAULTS_PAGE"
PARTS = ("Killed runs, -j 1", "Killed runs, -j 2", "Faults", "Hostile input", "Soak")
HEAD = f"""# Faults tried, and what was lost

Each row is written by its test, `{PAGE}=results/published/faults.md pytest tests/slow/FILE --timeout 0`, whether that
passes or fails: a failure stands beside the day, and Survived counts the faults after which everything held until then.
That all were survived bounds the chance that the next one is not, at 95 %, by about three over their number:
{1 - 0.05 ** (1 / 25):.0%} after 25.
"""


@dataclass(frozen=True)
class Part:
    """A table of the page; ``keys`` is how many columns name a row, which takes the place of an earlier one."""

    title: str
    file: str
    columns: Sequence[str]
    keys: int = 1

    @contextmanager
    def row(self, *names: str) -> Iterator[dict[str, Any]]:
        """The cells of a row by their columns, for the block to fill in; it is put on the page however the block ends,
        but for an interrupt: where it fails, that is said, and what it did not come to is not known.
        """
        cells: dict[str, Any] = {}
        try:
            yield cells
        except (Exception, pytest.fail.Exception) as error:
            self._add(names, cells, f", failed: {type(error).__name__}")
            raise
        self._add(names, cells)

    @contextmanager
    def faults(self, name: str) -> Iterator[dict[str, Any]]:
        """A row whose block counts what it tried and what was survived; nothing was lost where it ends well."""
        with self.row(name) as cells:
            cells |= {"Tried": 0, "Survived": 0}
            yield cells
            cells["Records lost or doubled"] = 0

    def _add(self, names: Sequence[str], values: dict[str, Any], ended: str = "") -> None:
        """Put a row on the page, with the day, the machine and how it ended."""
        cells = [*names, *(str(values.get(column, "not known")) for column in self.columns[len(names) :])]
        here = fingerprint()
        where = f"{datetime.now(UTC):%Y-%m-%d}, {here.machine}, load {here.load}, torch {version('torch')}{ended}"
        row = [*cells, where]
        print("\n" + markdown_table([*self.columns, "When and where"], [row]))
        if page := os.environ.get(PAGE):
            with FileLock(Path(tempfile.gettempdir()) / f"{Path(page).name}.lock"):  # campaigns may run side by side
                self._put(Path(page), row)

    def _put(self, page: Path, row: list[str]) -> None:
        texts = re.split(r"^(?=## )", page.read_text() if page.exists() else "", flags=re.MULTILINE)[1:]
        parts = {text.partition("\n")[0].removeprefix("## "): text.rstrip() + "\n" for text in texts}
        table = markdown_table([*self.columns, "When and where"], [row]).splitlines()
        head, new = table[:2], table[2]
        old = parts.get(self.title, "").splitlines()
        kept = [line for line in old if line.startswith("| ")][2:] if head[0] in old else []
        rows = [*(line for line in kept if self._name(line) != self._name(new)), new]
        parts[self.title] = "\n".join([f"## {self.title}\n", f"By `tests/slow/{self.file}`.\n", *head, *rows]) + "\n"
        page.write_text("\n".join([HEAD, *(parts[title] for title in PARTS if title in parts)]))

    def _name(self, line: str) -> list[str]:
        return line.split(" | ")[: self.keys]
