"""Writing files that others may be reading, and taking away those that are no longer written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from lowrank_bench.atomic import drafts

NAME_LENGTH = 60
WRITTEN = "figures/.written.json"
"""What the last report wrote there: names and sha256 of their bytes."""


def plain_name(text: str) -> str:
    """Text as a part of a file name, on any system: such as torchvision_resnet18. Of a long one the end, where a path
    says most.
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)[-NAME_LENGTH:]


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part. Raises NotWritten."""
    with drafts(path) as (draft,):
        draft.write_bytes(data)
    return path


def replace_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files by their names below a folder; returns their paths, sorted by name.

    Of the figures that the last call wrote there, those that are not among ``files`` are removed, unless somebody has
    changed them since; what it did not write stays. Raises InvalidRecord.
    """
    paths = [replace_file(folder / name, data) for name, data in sorted(files.items())]
    for name, digest in _written(folder).items():
        path = folder / name
        if name not in files and _digest(path) == digest:
            with suppress(OSError):
                path.unlink()
    figures = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.startswith("figures/")}
    if figures or (folder / WRITTEN).exists():
        replace_file(folder / WRITTEN, (json.dumps(figures, indent=0, sort_keys=True) + "\n").encode())
    return paths


def _written(folder: Path) -> dict[str, str]:
    """Names that lie in the folder of figures itself, whatever the list says."""
    try:
        listed = json.loads((folder / WRITTEN).read_bytes())
    except (OSError, ValueError):
        return {}
    names = listed if isinstance(listed, dict) else {}
    return {name: names[name] for name in names if PurePosixPath(name).parent == PurePosixPath("figures")}


def _digest(path: Path) -> str | None:
    try:
        return None if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
