"""Which cores this process may use, by its affinity and by its cgroup, and pinning it to some of them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lowrank_bench.errors import InvalidInput

# Linux tells about cores and cgroups here; elsewhere nothing exists under them, and nothing is limited.
SYS = Path("/sys")
PROC = Path("/proc")


def usable_cores() -> int:
    """Threads that can run at once: the cores of the affinity, fewer where the cgroup grants fewer."""
    return max(1, math.floor(min(len(visible_cores()), cgroup_cores() or math.inf)))


def visible_cores() -> list[int]:
    """Cores on which this process may run."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cgroup_cores() -> float | None:
    """Cores that the cgroup grants by its quota or its cpuset, which can be a fraction; None without such a limit."""
    limits = [limit for folder in _cgroup_folders() for limit in (_quota(folder), _cpuset(folder)) if limit]
    return min(limits) if limits and min(limits) < (os.cpu_count() or 1) else None


def sibling_threads(core: int) -> list[int]:
    """Hardware threads that share this one's physical core, itself among them."""
    return _numbers(read(SYS / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list")) or [core]


def pin_cores(n: int) -> tuple[int, ...]:
    """Bind this process to n cores, and return them; (), where the system cannot.

    One hardware thread of each physical core comes first, high numbers before low ones: core 0 serves most interrupts.
    Threads that run already are not moved: call it before the first parallel work. Raises InvalidInput for fewer than
    one core or more than there are.
    """
    cores = visible_cores()
    if not 1 <= n <= len(cores):
        raise InvalidInput(f"cannot pin to {n} cores: this process may use 1 to {len(cores)}")
    if sys.platform != "linux":
        return ()
    chosen = sorted(cores, key=lambda core: (sibling_threads(core).index(core), -core))[:n]
    os.sched_setaffinity(0, chosen)
    return tuple(sorted(chosen))


@contextmanager
def pinned(n: int) -> Iterator[None]:
    """On n cores within, chosen as ``pin_cores`` does, with every thread of this process: those that run already, too.
    Afterwards each may run where it could before, and new ones where their maker could. Raises InvalidInput.
    """
    own, before = visible_cores(), _threads()
    chosen = pin_cores(n)
    try:
        for thread in before if chosen else ():
            _bind(thread, chosen)
        yield
    finally:
        for thread in _threads() if chosen else ():
            _bind(thread, before.get(thread, own))


def read(path: Path) -> str:
    """Text of a small system file, stripped; empty where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _threads() -> dict[int, Iterable[int]]:
    """This process's threads by their numbers, each with the cores on which it may run."""
    found: dict[int, Iterable[int]] = {}
    if sys.platform == "linux":
        for thread in map(int, os.listdir("/proc/self/task")):
            with suppress(ProcessLookupError):  # it has just ended
                found[thread] = os.sched_getaffinity(thread)
    return found


def _bind(thread: int, cores: Iterable[int]) -> None:
    with suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cores)


def _cgroup_folders() -> Iterator[Path]:
    """The folders of this process's cgroups and of all above them, whose limits hold as well (version 1 and 2)."""
    for line in read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        root = SYS / "fs/cgroup" / controllers
        own = root / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _quota(folder: Path) -> float | None:
    quota, _, period = read(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _cpuset(folder: Path) -> float | None:
    cores = _numbers(read(folder / "cpuset.cpus.effective") or read(folder / "cpuset.effective_cpus"))
    return float(len(cores)) or None


def _numbers(text: str) -> list[int]:
    """Numbers of a list such as ``0-2,8``."""
    spans = [span.split("-") for span in text.split(",") if span]
    return [number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]
