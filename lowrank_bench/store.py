"""Records on disk: append-only JSON lines, flushed to the disk one by one; records are the only state."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from lowrank_bench.atomic import after_last_newline, append_whole, drafts
from lowrank_bench.errors import InvalidInput, InvalidRecord, NotWritten
from lowrank_bench.reading import (
    Line,
    NoRecord,
    counts,
    in_order,
    lines_below,
    parse_record,
    read_records,
    stream,
    streams_below,
)
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord

FILE_NAME = "records.jsonl"
ASIDE_SUFFIX = ".unreadable"


class End(NamedTuple):
    """How a trial or measurement ended, and why."""

    status: Status
    reason: str


class Merged(NamedTuple):
    """What ``merge`` did: records that the file holds now, how many of them are new there, how many lines were
    repetitions of others, how many keys have several records that differ, and how many lines could not be read.
    """

    path: Path
    records: int
    new: int
    repeated: int
    conflicting: int
    unreadable: int


class Store:
    """The records of one results folder. Appending is atomic per record, across threads and processes."""

    def __init__(self, folder: Path | str) -> None:
        """Make the folder where it does not exist. Raises InvalidRecord where it cannot be written."""
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        try:
            str(self.folder).encode()  # it stands in what children are told
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
        except UnicodeEncodeError:
            raise InvalidRecord(f"results folder {str(folder)!r}: its name is no text: choose another --out") from None
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
                    append_whole(handle, line)
                finally:
                    os.close(handle)
        except OSError as error:
            raise NotWritten(
                f"{self.path}: the record could not be written ({error.strerror}): make room, then run again; what was "
                "recorded before is untouched"
            ) from None

    def records(self) -> list[TrialRecord | MeasurementRecord]:
        """Every readable record in this folder and below, oldest first."""
        return read_records(self.folder, allow_empty=True)

    def ends(self) -> dict[str, End]:
        """How each key ended: by the record that counts. No more than a record of each file is in memory at a time."""
        ends: dict[str, End] = {}
        for line in in_order(streams_below(self.folder)):
            if (record := line.record) is None:
                continue
            before = ends.get(record.key)
            if counts(record.status, None if before is None else before.status):
                ends[record.key] = End(record.status, record.reason)
        return ends

    def _mend_last_line(self, handle: int) -> None:
        """A last line without an end is ended where it is a whole record, and set aside where it is not."""
        size = os.fstat(handle).st_size
        tail = after_last_newline(handle, size)
        if not tail:
            return
        try:
            parse_record(tail)
        except NoRecord:
            self._set_aside([tail])
            os.ftruncate(handle, size - len(tail))
        else:
            append_whole(handle, b"\n")

    def unite(self, files: Iterable[list[Line]]) -> Merged:
        """Add the lines of other files: see ``merge``. The file is replaced at once, so no reader sees a part of it."""
        with self._lock:
            own = list(stream(self.path))
            lines = [*in_order([own, *files])]
            # Of equal lines the first one keeps its place.
            records = {line.data: line.record for line in lines if line.record}
            unread = [*dict.fromkeys(line.data for line in lines if not line.record)]
            try:
                self._set_aside(unread)
                if [*records] != [line.data for line in own]:
                    with drafts(self.path) as (draft,):
                        draft.write_bytes(b"".join(line + b"\n" for line in records))
            except OSError as error:
                raise InvalidRecord(f"{self.path} cannot be written ({error.strerror}): choose another --out") from None
        readable = [line.data for line in lines if line.record]
        keys = Counter(record.key for record in records.values())
        return Merged(
            self.path,
            records=len(records),
            new=len(records) - len({line.data for line in own if line.record}),
            repeated=len(readable) - len(records),
            conflicting=sum(count > 1 for count in keys.values()),
            unreadable=len(unread),
        )

    def _set_aside(self, lines: Sequence[bytes]) -> None:
        path = self.path.with_name(FILE_NAME + ASIDE_SUFFIX)
        known = set(path.read_bytes().split(b"\n")) if path.exists() else set()
        if fresh := [line for line in lines if line not in known]:
            with path.open("ab") as aside:
                aside.writelines(line + b"\n" for line in fresh)
                aside.flush()
                os.fsync(aside.fileno())


def merge(folders: Sequence[Path | str], out: Path | str) -> Merged:
    """Unite the records of several folders in ``out``, beside what is there already; merging again changes nothing.

    Lines that are alike to the byte are kept once. Of a key with several records all are kept, in the order of
    ``read_records``, so that the same one counts as before. What cannot be read is set aside beside the records. The
    folders themselves are not touched. Raises InvalidRecord where a folder does not exist, nothing readable is found or
    ``out`` cannot be written, InvalidInput where a folder lies in ``out`` or ``out`` in a folder.
    """
    sources = [Path(folder) for folder in folders]
    for source in sources:
        _check_apart(source, Path(out))
    found = [line for source in sources for line in lines_below(source)]
    if not any(line.record for lines in found for line in lines):
        names = ", ".join(repr(str(source)) for source in sources)
        raise InvalidRecord(f"no readable record in {names}: name folders that `lowrank-bench run --out` has filled")
    return Store(out).unite(found)


def _check_apart(source: Path, out: Path) -> None:
    inner, outer = source.resolve(), out.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InvalidInput(
            f"--out {out} and {source} lie in one another, so that each record would be read twice: choose a folder "
            "beside it"
        )
