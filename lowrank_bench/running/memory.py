"""A limit on the memory of a child, and telling that the system killed it for want of memory."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.cores import PROC, read

if sys.platform != "win32":
    import resource


def check_memory(gigabytes: float) -> None:
    """Raise InvalidInput for anything but a positive number of GB on Linux."""
    if not (math.isfinite(gigabytes) and gigabytes > 0):
        raise InvalidInput(f"--memory {gigabytes}: a positive number of GB (1e9 bytes) is wanted")
    if sys.platform != "linux":
        raise InvalidInput(f"--memory {gigabytes}: only Linux limits the memory of a process; leave it out here")


@contextmanager
def limited_memory(gigabytes: float | None) -> Iterator[None]:
    """Let this process have no more private memory than so many GB, 1e9 bytes: beyond it, allocations fail.

    Not the address space is limited, of which torch maps several GB that it never touches, but what can be written and
    is not shared (RLIMIT_DATA). Raises MemoryError where the process has more already.
    """
    if gigabytes is None or sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted, used = int(gigabytes * 1e9), _private_bytes()
    if used >= wanted:
        raise MemoryError(f"the limit of {gigabytes:g} GB is below the {used / 1e9:.2f} GB of a child before it begins")
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))  # there is memory for telling how it ended


def killed_for_memory() -> int:
    """How many processes the system has killed for want of memory since it started; 0 where it does not tell."""
    found = re.search(r"^oom_kill (\d+)$", read(PROC / "vmstat"), re.MULTILINE)
    return int(found[1]) if found else 0


def _private_bytes() -> int:
    found = re.search(r"^VmData:\s+(\d+) kB$", read(PROC / "self/status"), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
