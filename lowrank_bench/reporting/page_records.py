"""The list of records on the page, and which of them stand behind a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from lowrank_bench.reading import Line, latest
from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.boards.board import Board, rows_of
from lowrank_bench.reporting.frame.columns import Setting, What, setting_of, what_of
from lowrank_bench.reporting.page_table import Cell, PageRow, PageTable

HEADINGS = ["Record", "Kind", "What", "Setting", "Status", "Reason", "Seconds", "Finished", "Line"]


def links_of(board: Board) -> dict[tuple[What, Setting], list[str]]:
    """The keys of the timings behind each row, by what was made and in which setting it was timed."""
    keys: dict[tuple[What, Setting], list[str]] = {}
    for row in rows_of(board.timings):
        keys.setdefault((what_of(row), setting_of(row)), []).append(row.key)
    return keys


def records_table(lines: Sequence[Line], folder: Path) -> PageTable:
    """Every record that counts, with the line where it stands below the folder."""
    records = latest(line.record for line in lines if line.record)
    # of several lines of one key, the one whose record counts
    places = {
        line.record.key: (line.path.relative_to(folder).as_posix(), line.number)
        for line in lines
        if line.record and line.record is records[line.record.key]
    }
    trials = {key: str(record.trial) for key, record in records.items() if isinstance(record, TrialRecord)}
    rows = []
    for key, record in records.items():
        if isinstance(record, TrialRecord):
            what, setting = Cell(trials[key]), ""
        else:
            timed = record.measurement
            what = Cell(f"trial {timed.trial}, not among the records")
            if timed.trial in trials:
                what = Cell("", links=[(trials[timed.trial], f"#record-{timed.trial}")])
            setting = f"{timed.setting}, {timed.machine}"
        path, number = places[key]
        seconds = sum(record.seconds.values())
        cells = [
            Cell(key, heads=True),
            Cell(record.kind),
            what,
            Cell(setting),
            Cell(str(record.status)),
            Cell(record.reason, kind="prose" if record.reason else ""),
            Cell(f"{seconds:.1f}", f"{seconds:.9g}"),
            Cell(record.finished),
            Cell("", links=[(f"{path} line {number}", quote(path))]),
        ]
        rows.append(PageRow(cells, f"record-{key}"))
    return PageTable("list-of-records", "Records", HEADINGS, rows, sortable=True, long=True)
