"""Images that are decoded once, before any work, and not again until they change."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowrank_bench.atomic import drafts
from lowrank_bench.errors import InvalidData, NotWritten
from lowrank_bench.tasks.baseline import cache_folder

if TYPE_CHECKING:
    from PIL.Image import Image

THREADS = 8
AT_A_TIME = 4096  # images between two looks at how far it came

DEEP = "I", "F"  # PIL's modes of whole numbers of 16 or 32 bits, and of floating point
LOOK = 2  # raised where more is looked at, so that what passed before is looked at again

Marks = NDArray[np.uint64]


@contextmanager
def opened(path: str) -> Iterator[Image]:
    """The picture of a file. Raises InvalidData where that is no whole image, or one so large that it may be an attack,
    also when it is decoded within.
    """
    from PIL import Image

    unreadable = OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError
    try:
        with Image.open(path) as image:
            yield image
    except unreadable as error:
        raise InvalidData(f"{path} is not an image that can be read ({error}): remove it, or get it again") from None


def check_images(folder: Path, paths: Sequence[str]) -> None:
    """Decode every image of a folder that has not been decoded before as it is now, by name, size and time of change.

    What was decoded is remembered in the cache folder, also where this is cut short. Raises InvalidData naming the
    first image that cannot be decoded.
    """
    memory = cache_folder() / "decoded" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.npy"
    marks = np.array([_mark(path) for path in paths], np.uint64)
    known = _remembered(memory)
    fresh = np.flatnonzero(~np.isin(marks, known)).tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(fresh), AT_A_TIME):
            rows = fresh[start : start + AT_A_TIME]
            problems = [*pool.map(_problem, (paths[row] for row in rows))]
            well = [marks[row] for row, problem in zip(rows, problems, strict=True) if problem is None]
            known = np.union1d(known, np.array(well, np.uint64))
            _remember(memory, known)
            if found := next(filter(None, problems), None):
                raise found


def _problem(path: str) -> InvalidData | None:
    try:
        with opened(path) as image:
            image.draft(None, (1, 1))  # a JPEG is then read whole, and computed at an eighth
            image.load()
            if image.mode.startswith(DEEP) or image.mode == "LAB":
                return InvalidData(
                    f"{path} holds pixels of mode {image.mode}, which would be cut off at 255 or cannot be made red, "
                    "green and blue: save it with 8 bits a channel, scaled as the network was trained"
                )
    except InvalidData as error:
        return error
    return None


def _mark(path: str) -> int:
    try:
        facts = Path(path).stat()
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror}): remove it, or get it again") from None
    said = f"{LOOK} {os.path.abspath(path)} {facts.st_size} {facts.st_mtime_ns}"
    return int.from_bytes(hashlib.blake2b(os.fsencode(said), digest_size=8).digest(), "little")


def _remembered(memory: Path) -> Marks:
    with suppress(OSError, ValueError, EOFError):  # not there yet, or damaged
        found: Marks = np.load(memory, allow_pickle=False)
        if found.dtype == np.uint64 and found.ndim == 1:
            return found
    return np.empty(0, np.uint64)


def _remember(memory: Path, marks: Marks) -> None:
    with suppress(NotWritten), drafts(memory) as (draft,), draft.open("wb") as file:  # then they are decoded again
        np.save(file, marks)
