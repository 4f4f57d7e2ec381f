"""Records on disk: append-only JSON lines, flushed to the disk one by one; records are the only state."""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.record import RECORD, MeasurementRecord, TrialRecord

FILE_NAME = "records.jsonl"
ASIDE_SUFFIX = ".unreadable"


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
                f"results folder {str(self.folder)!r} cannot be written ({error.strerror}): choose another --out"
            ) from None
        self._lock = FileLock(self.folder / ".records.lock")

    def append(self, record: TrialRecord | MeasurementRecord) -> None:
        """Write one record and wait until it is on the disk. A half-written last line is set aside first."""
        line = record.model_dump_json(exclude_defaults=False) + "\n"
        with self._lock:
            self._set_partial_line_aside()
            try:
                with self.path.open("ab") as file:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InvalidRecord(
                    f"{self.path}: the record could not be written ({error.strerror}); what was recorded before is "
                    "untouched"
                ) from None

    def records(self) -> list[TrialRecord | MeasurementRecord]:
        """Every readable record in this folder and below, oldest first."""
        return read_records(self.folder, allow_empty=True)

    def _set_partial_line_aside(self) -> None:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end == len(data):
            return
        with self.path.with_name(FILE_NAME + ASIDE_SUFFIX).open("ab") as aside:
            aside.write(data[end:] + b"\n")
            aside.flush()
            os.fsync(aside.fileno())
        os.truncate(self.path, end)


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
    # within a file the order of writing counts, whatever the clock did; between files the clock is all there is
    files = [list(_read_file(path)) for path in _record_files(folder)]
    records = list(heapq.merge(*files, key=lambda record: record.finished))
    if not records and not allow_empty:
        raise InvalidRecord(
            f"results folder {str(folder)!r} holds no readable record: run `lowrank-bench run --out {folder}` first, "
            "or name another"
        )
    return records


def latest(records: Iterable[TrialRecord | MeasurementRecord]) -> dict[str, TrialRecord | MeasurementRecord]:
    """The record that counts for each key: the last one, as a retry replaces what it repeats."""
    return {record.key: record for record in records}


def _record_files(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))


def _read_file(path: Path) -> Iterator[TrialRecord | MeasurementRecord]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InvalidRecord(f"{path} cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield RECORD.validate_json(line)
        except ValidationError as error:
            half = " (half-written last line)" if number == len(lines) else ""
            warnings.warn(
                f"{path}, line {number}{half} is not a record and is set aside: "
                f"{error.errors(include_url=False)[0]['msg']}",
                stacklevel=2,
            )
