"""Records on disk: append-only JSON lines, flushed to the disk one by one; records are the only state."""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from lowrank_bench.errors import InvalidRecord, NotWritten
from lowrank_bench.record import RECORD, MeasurementRecord, Status, TrialRecord

FILE_NAME = "records.jsonl"
ASIDE_SUFFIX = ".unreadable"
BLOCK = 1 << 16


class Store:
    """The records of one results folder. Appending is atomic per record, across threads and processes."""

    def __init__(self, folder: Path | str) -> None:
        """Make the folder where it does not exist. Raises InvalidRecord where it cannot be written."""
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
        except OSError as error:
            raise InvalidRecord(
                f"results folder {str(folder)!r} cannot be written ({error.strerror}): choose another --out"
            ) from None
        self._lock = FileLock(self.folder / ".records.lock")

    def append(self, record: TrialRecord | MeasurementRecord) -> None:
        """Write one record and wait until it is on the disk. A half-written last line is set aside first.

        Raises NotWritten where the disk is full; then the file is as it was before.
        """
        line = record.model_dump_json(exclude_defaults=False).encode() + b"\n"
        try:
            with self._lock:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
                try:
                    self._mend_last_line(handle)
                    _write(handle, line)
                finally:
                    os.close(handle)
        except OSError as error:
            raise NotWritten(
                f"{self.path}: the record could not be written ({error.strerror}): make room, then run again; what was "
                "recorded before is untouched"
            ) from None

    def records(self) -> list[TrialRecord | MeasurementRecord]:
        """Every readable record in this folder and below, oldest first."""
        return list(_iterate(self.folder))

    def statuses(self) -> dict[str, Status]:
        """How each key ended: by its last record. Holds one record in memory at a time."""
        return {record.key: record.status for record in _iterate(self.folder)}

    def _mend_last_line(self, handle: int) -> None:
        """A last line without an end is ended where it is a whole record, and set aside where it is not."""
        size = os.fstat(handle).st_size
        tail = _after_last_newline(handle, size)
        if not tail:
            return
        try:
            RECORD.validate_json(tail)
        except ValidationError:
            with self.path.with_name(FILE_NAME + ASIDE_SUFFIX).open("ab") as aside:
                aside.write(tail + b"\n")
                aside.flush()
                os.fsync(aside.fileno())
            os.ftruncate(handle, size - len(tail))
        else:
            _write(handle, b"\n")


def read_records(folder: Path | str, *, allow_empty: bool = False) -> list[TrialRecord | MeasurementRecord]:
    """Every readable record of every ``*.jsonl`` below a folder, in the order of writing.

    A line that cannot be read is skipped with a warning that names file and line; it stays where it is.
    Raises InvalidRecord where the folder does not exist, or holds no readable record (unless ``allow_empty``).
    """
    folder = Path(folder)
    if not folder.exists():
        raise InvalidRecord(
            f"results folder {str(folder)!r} does not exist: run `lowrank-bench run --out {folder}` first, or name "
            "another"
        )
    records = list(_iterate(folder))
    if not records and not allow_empty:
        raise InvalidRecord(
            f"results folder {str(folder)!r} holds no readable record: run `lowrank-bench run --out {folder}` first, "
            "or name another"
        )
    return records


def latest(records: Iterable[TrialRecord | MeasurementRecord]) -> dict[str, TrialRecord | MeasurementRecord]:
    """The record that counts for each key: the last one, as a retry replaces what it repeats."""
    return {record.key: record for record in records}


def _iterate(folder: Path) -> Iterator[TrialRecord | MeasurementRecord]:
    # within a file the order of writing counts, whatever the clock did; between files the clock is all there is
    return heapq.merge(*map(_read_file, _record_files(folder)), key=lambda record: record.finished)


def _record_files(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted(path for path in folder.rglob("*.jsonl") if path.is_file())


def _read_file(path: Path) -> Iterator[TrialRecord | MeasurementRecord]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield RECORD.validate_json(line)
                except ValidationError as error:
                    half = "" if line.endswith(b"\n") else " (half-written last line)"
                    warnings.warn(
                        f"{path}, line {number}{half} is not a record and is set aside: "
                        f"{error.errors(include_url=False)[0]['msg']}",
                        stacklevel=2,
                    )
    except OSError as error:
        raise InvalidRecord(f"{path} cannot be read ({error.strerror})") from None


def _after_last_newline(handle: int, size: int) -> bytes:
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        start = max(0, start - BLOCK)
        os.lseek(handle, start, os.SEEK_SET)
        tail = os.read(handle, min(BLOCK, size - start - len(tail))) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _write(handle: int, data: bytes) -> None:
    """All of it, on the disk, or none of it."""
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(handle, data[written:])
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise
