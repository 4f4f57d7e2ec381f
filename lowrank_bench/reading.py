"""Records as they are read: line by line, from every file below a folder; what cannot be read costs only itself."""

from __future__ import annotations

import heapq
import os
import warnings
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from lowrank_bench.errors import InvalidRecord, LowRankBenchError
from lowrank_bench.record import RECORD, MeasurementRecord, Status, TrialRecord


class Line(NamedTuple):
    """One line of a file of records, counted from 1; ``record`` is None where it cannot be read."""

    path: Path
    number: int
    data: bytes
    record: TrialRecord | MeasurementRecord | None


def read_lines(folder: Path | str, *, allow_empty: bool = False) -> list[Line]:
    """Every line with a readable record of every ``*.jsonl`` below a folder, in the order of writing.

    Lines that cannot be read are skipped with a warning that names file and line; they stay where they are.
    Raises InvalidRecord where the folder does not exist, or holds no readable record (unless ``allow_empty``).
    """
    folder = Path(folder)
    files = lines_below(folder)
    lines = [line for line in in_order(files) if line.record]
    if not lines and not allow_empty:
        if unread := sum(map(len, files)):
            raise InvalidRecord(
                f"results folder {str(folder)!r} holds no readable record: none of its {unread} lines is one that this "
                "version of lowrank-bench reads; read them with the version that wrote them, or name another folder"
            )
        raise InvalidRecord(
            f"results folder {str(folder)!r} holds no readable record: run `lowrank-bench run --out {folder}` first, "
            "or name another"
        )
    return lines


def read_records(folder: Path | str, *, allow_empty: bool = False) -> list[TrialRecord | MeasurementRecord]:
    """The records of ``read_lines``."""
    return [line.record for line in read_lines(folder, allow_empty=allow_empty) if line.record]


def latest(records: Iterable[TrialRecord | MeasurementRecord]) -> dict[str, TrialRecord | MeasurementRecord]:
    """The record that counts for each key: see ``counts``; in the order in which these were recorded."""
    kept: dict[str, TrialRecord | MeasurementRecord] = {}
    for record in records:
        before = kept.get(record.key)
        if counts(record.status, None if before is None else before.status):
            kept.pop(record.key, None)
            kept[record.key] = record
    return kept


def counts(status: Status, before: Status | None) -> bool:
    """Whether a record takes the place of an earlier one of its key: a retry replaces what it repeats, but one that did
    not end well hides nothing that did.
    """
    return status is Status.OK or before is not Status.OK


def lines_below(folder: Path) -> list[list[Line]]:
    """Every line that is not blank, by file."""
    return [list(lines) for lines in streams_below(folder)]


def streams_below(folder: Path) -> list[Iterator[Line]]:
    """The same, each file read as it is asked for. Raises InvalidRecord where the folder does not exist."""
    if not folder.exists():
        raise InvalidRecord(
            f"results folder {str(folder)!r} does not exist: run `lowrank-bench run --out {folder}` first, or name "
            "another"
        )
    return [stream(path) for path in ([folder] if folder.is_file() else _record_files(folder))]


def _record_files(folder: Path) -> list[Path]:
    """Every ``*.jsonl`` below a folder; what a run that is still going removes meanwhile is passed over. Raises
    InvalidRecord for a folder that cannot be read, and warns of a link to one.
    """

    def not_read(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise InvalidRecord(f"{error.filename} cannot be read ({error.strerror})")

    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=not_read):
        found += (Path(here, name) for name in names if name.endswith(".jsonl"))
        for link in (path for name in folders if (path := Path(here, name)).is_symlink()):
            warnings.warn(f"{link} is a link to a folder, which is not followed: name that folder itself", stacklevel=2)
    return sorted(found)


def in_order(files: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Within a file the order of writing counts, whatever the clock did; between files the clock is all there is."""
    return heapq.merge(*files, key=lambda line: line.record.finished if line.record else "")


def stream(path: Path) -> Iterator[Line]:
    """Line after line, so that a file of any length fits; what cannot be read is told at the end."""
    mistakes = []
    try:
        with path.open("rb") as file:
            for number, ended in enumerate(file, start=1):
                line = ended.removesuffix(b"\n").removeprefix(BOM_UTF8)  # with which some editors begin a file
                if not line.strip():
                    continue
                try:
                    record: TrialRecord | MeasurementRecord | None = parse_record(line)
                except NoRecord as error:
                    half = "" if ended.endswith(b"\n") else " (half-written last line)"
                    mistakes.append(f"line {number}{half} is not a record and is set aside: {error}")
                    record = None
                yield Line(path, number, line, record)
    except OSError as error:
        raise InvalidRecord(f"{path} cannot be read ({error.strerror})") from None
    if mistakes:
        others = f" (and {len(mistakes) - 1} more lines, as of another version)" if len(mistakes) > 1 else ""
        warnings.warn(f"{path}, {mistakes[0]}{others}", stacklevel=2)


class NoRecord(Exception):
    """Why a line is none."""


def parse_record(line: bytes) -> TrialRecord | MeasurementRecord:
    """The record of a line. Raises NoRecord, saying why it is none."""
    try:
        record = RECORD.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except LowRankBenchError as error:  # a budget names its own mistakes
        reason = str(error)
    else:
        key = (record.trial if isinstance(record, TrialRecord) else record.measurement).key
        if record.key == key:
            return record
        reason = f"key: {record.key!r} is not that of its {record.kind}, which is {key}"
    raise NoRecord(reason)
