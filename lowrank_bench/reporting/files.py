"""Writing files that others may be reading."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lowrank_bench.errors import InvalidRecord


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part. Raises InvalidRecord."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise InvalidRecord(f"{path} cannot be written ({error.strerror}): make its folder writable") from None
    return path
