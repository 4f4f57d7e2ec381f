"""Writing files that others may be reading."""

from __future__ import annotations

from pathlib import Path

from lowrank_bench.atomic import drafts


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part. Raises NotWritten."""
    with drafts(path) as (draft,):
        draft.write_bytes(data)
    return path
