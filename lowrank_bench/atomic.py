"""Files that appear whole or not at all: drafts beside them, flushed to the disk, then renamed; and lines likewise."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lowrank_bench.errors import NotWritten

SUFFIX = ".draft"
BLOCK = 1 << 16


@contextmanager
def drafts(*paths: Path) -> Iterator[list[Path]]:
    """Drafts to write, one for each path; folders are made. When the block ends well they take the paths' places in
    that order. Of several the last is the mark of them all: it is removed first, so that where it stands, all do.

    Raises NotWritten where the disk is full or a folder cannot be written; then what stood there is untouched, and no
    draft is left. A draft that a kill left behind is removed by ``remove_drafts``.
    """
    owner = f"{os.getpid()}-{threading.get_ident()}"
    written = [path.with_name(f".{path.name}.{owner}{SUFFIX}") for path in paths]
    try:
        for folder in dict.fromkeys(path.parent for path in paths):
            folder.mkdir(parents=True, exist_ok=True)
        yield written
        for draft in written:
            _flush(draft)
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)
        for draft, path in zip(written, paths, strict=True):
            draft.replace(path)
        for folder in {path.parent for path in paths}:
            _flush_folder(folder)
    except OSError as error:
        raise NotWritten(
            f"{paths[-1]} cannot be written ({error.strerror or error}): make room or make its folder writable; "
            "nothing half written is left"
        ) from None
    finally:
        for draft in written:
            with suppress(OSError):
                draft.unlink()


@contextmanager
def told_of_disk(place: Path | str) -> Iterator[None]:
    """Raise NotWritten, naming the place, for whatever the system will not write there in this block."""
    try:
        yield
    except OSError as error:
        raise NotWritten(
            f"{place} cannot be written ({error.strerror or error}): make room or make it writable, then run again"
        ) from None


def write_tensors(tensors: Mapping[str, Tensor], draft: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a draft as safetensors. Raises OSError where the disk is full."""
    values = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }  # none may be shared
    try:
        save_file(values, draft, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from None


def remove_drafts(folder: Path) -> None:
    """Remove the drafts below a folder that killed processes left; nobody else may be writing there."""
    for draft in folder.rglob(f".*{SUFFIX}"):
        with suppress(OSError):
            draft.unlink()


def append_whole(handle: int, data: bytes) -> None:
    """Add all of it to an open file, on the disk, or none of it. Raises OSError where the disk is full."""
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


def after_last_newline(handle: int, size: int) -> bytes:
    """What stands in an open file of so many bytes after its last whole line: nothing, where all are whole."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        start = max(0, start - BLOCK)
        os.lseek(handle, start, os.SEEK_SET)
        tail = os.read(handle, min(BLOCK, size - start - len(tail))) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _flush(draft: Path) -> None:
    with draft.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the renames last; where a folder cannot be opened, as on Windows, the system sees to it."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
