"""Who may use the machine: preparation shares it, what is timed has it alone. A lock ends with the process that holds
it, however it ends.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from lowrank_bench.errors import InvalidInput

if sys.platform != "win32":
    import fcntl

# The door is passed one at a time, and held by whoever waits for an empty room: nobody enters behind his back.
ROOM, DOOR = "lowrank-bench-timing.lock", "lowrank-bench-waiting.lock"
# Seconds between two tries: more and more, up to this, as whoever has the machine may be timing.
LONGEST_PAUSE = 0.5

LOCKS_VARIABLE = "LOWRANK_BENCH_LOCKS"
SHARED = Path("/tmp")
"""Whatever TMPDIR says: jobs with folders of their own, and other users, time on the same cores."""


Waiting = Callable[[], object]
"""What is called once where somebody else has the machine, so that whoever waits can say so."""


def say_waiting() -> None:
    """On standard error, or where the program's own logging goes."""
    logging.getLogger("lowrank_bench").warning("waiting for the machine: another lowrank-bench is using it")


class Stopped(Exception):
    """The run was stopped while it waited for the machine."""


@contextmanager
def timing_lock(stop: threading.Event | None = None, waiting: Waiting | None = None) -> Iterator[None]:
    """Have the whole machine alone. Raises Stopped as soon as ``stop`` is set, InvalidInput where it cannot lock."""
    if sys.platform == "win32":
        with FileLock(_folder() / ROOM):
            yield
        return
    with _opened(DOOR) as door, _opened(ROOM) as room:
        _acquire((door, room), fcntl.LOCK_EX, stop, waiting)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@contextmanager
def preparation_lock(stop: threading.Event | None = None, waiting: Waiting | None = None) -> Iterator[None]:
    """Share the machine with other preparation, of this run or another, but with no timing. Raises as timing_lock does.
    Windows has no shared locks: there it holds nothing.
    """
    if sys.platform == "win32":
        yield
        return
    with _opened(ROOM) as room:
        with _opened(DOOR) as door:
            _acquire((door, room), fcntl.LOCK_SH, stop, waiting)
        yield


@contextmanager
def _opened(name: str) -> Iterator[int]:
    """A lock file that all users of the machine share; closing it releases its lock."""
    path = _folder() / name
    try:
        handle = _open(path)
    except FileNotFoundError:
        raise InvalidInput(f"{path} cannot be locked: make the folder that {LOCKS_VARIABLE} names") from None
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be locked ({error.strerror}): let its owner remove it, or set {LOCKS_VARIABLE} to "
            "another folder, the same one for whatever times on this machine"
        ) from None
    try:
        yield handle
    finally:
        os.close(handle)


def _folder() -> Path:
    """Where the locks are: the folder that LOWRANK_BENCH_LOCKS names, else /tmp, else the user's temporary folder."""
    named = os.environ.get(LOCKS_VARIABLE)
    return Path(named) if named else SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)  # another user's file must not be opened to create it
    except FileNotFoundError:
        pass
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(handle, 0o666)  # whatever the umask
        return handle
    except FileExistsError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _acquire(handles: tuple[int, ...], kind: int, stop: threading.Event | None, waiting: Waiting | None) -> None:
    """Lock one after the other."""
    stop = stop or threading.Event()
    for handle in handles:
        pause = 0.001
        while not _taken(handle, kind):
            if waiting is not None:
                waiting()
                waiting = None
            if stop.wait(pause):
                raise Stopped
            pause = min(2 * pause, LONGEST_PAUSE)


def _taken(handle: int, kind: int) -> bool:
    """Whether it could be locked at once."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
