"""One child process: start it, hear its progress, take its outcome, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
from pydantic import ValidationError

from lowrank_bench.atomic import told_of_disk
from lowrank_bench.errors import NotWritten
from lowrank_bench.measurement.environment import THREAD_VARIABLES
from lowrank_bench.record import Status
from lowrank_bench.running.locks import Stopped
from lowrank_bench.running.memory import killed_for_memory
from lowrank_bench.running.worker import LINE, Halt, Job, Outcome

START = "lowrank_bench.running.start"
STDERR_KEPT = 4000
# A child that closed its output is given so long to end by itself, so that its own exit status is seen.
LAST_SECONDS = 2.0
KILLED = 9  # signal.SIGKILL, which Windows does not have

Progress = Callable[[str, float, int], None]
"""(stage, its share done from 0 to 1, the job's row)."""


@dataclass(frozen=True)
class Ended:
    """A child's outcome, and the end of what it wrote to standard error where that was not a good one."""

    outcome: Outcome
    stderr: str


@dataclass(frozen=True)
class Family:
    """The children of one run, in whatever threads they are waited for: ``end`` kills them all, and any that starts
    later.
    """

    ended: threading.Event = field(default_factory=threading.Event)
    _living: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, child: subprocess.Popen[str]) -> None:
        """Count a child among those that ``end`` kills."""
        with self._lock:
            self._living.add(child)
            if self.ended.is_set():
                _kill_group(child)

    def remove(self, child: subprocess.Popen[str]) -> None:
        """Forget a child that was waited for."""
        with self._lock:
            self._living.discard(child)

    def end(self) -> None:
        """Kill them all. What waits for them raises Stopped."""
        with self._lock:
            self.ended.set()
            for child in self._living:
                _kill_group(child)


def run_child(
    job: Job,
    threads: int,
    timeout: float,
    progress: Progress,
    family: Family | None = None,
    working: Path | None = None,
) -> Ended:
    """Run a job in a child with so many threads, at most ``timeout`` seconds; whatever it does, an outcome comes back.
    ``working``: the folder in which it works, by default that of this process.

    The parent sleeps in a read meanwhile. On any way out, Ctrl-C too, the child's whole process group is gone. Raises
    NotWritten where the child could not save what it made or its log has no room, and Stopped where the family was
    ended.
    """
    family = family or Family()
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, "-P", "-m", START]  # -P: in a clone, ./lowrank_bench has no methods
    killed_before = killed_for_memory()
    with told_of_disk("the folder for temporary files (TMPDIR)"):
        log = tempfile.TemporaryFile()  # noqa: SIM115  closed below
    with log as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=environment,
            cwd=working,
            start_new_session=True,
        )
        late = threading.Event()
        alarm = threading.Timer(min(timeout, threading.TIMEOUT_MAX), _end_late, (child, late))
        alarm.start()
        try:
            family.add(child)
            end = _listen(child, job, progress)
            if end is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(LAST_SECONDS)
        finally:
            alarm.cancel()
            _kill_group(child)
            child.wait()
            family.remove(child)
            _close_pipes(child)
        stderr = _tail(errors)
    if family.ended.is_set():
        raise Stopped
    if isinstance(end, Halt):
        raise NotWritten(end.reason)
    if end is None and late.is_set():
        end = Outcome(status=Status.TIMEOUT, reason=f"not done after {timeout:g} s")
    elif end is None:
        end = _without_outcome(child.returncode, stderr, killed_for_memory() > killed_before)
    well = all(outcome.status.well for outcome in (end, *end.rows))
    return Ended(end, "" if well else stderr)


def _listen(child: subprocess.Popen[str], job: Job, progress: Progress) -> Outcome | Halt | None:
    assert child.stdin is not None and child.stdout is not None  # both are pipes
    with contextlib.suppress(BrokenPipeError):  # a child that died at once says so by its empty output
        child.stdin.write(job.model_dump_json() + "\n")
        child.stdin.flush()
    for text in child.stdout:
        try:
            line = LINE.validate_json(text)
        except ValidationError:
            continue  # a half-written line of a child that is being killed
        if isinstance(line, Outcome | Halt):
            return line
        progress(line.stage, line.share, line.row)
    return None


def _without_outcome(returncode: int, stderr: str, memory_ran_out: bool) -> Outcome:
    if returncode == -KILLED and memory_ran_out:
        return Outcome(status=Status.OUT_OF_MEMORY, reason="killed by the system, whose memory had run out")
    if "std::bad_alloc" in stderr:
        return Outcome(status=Status.OUT_OF_MEMORY, reason="a library ended the child, as it got no memory")
    how = (
        f"by signal {-returncode} ({signal.strsignal(-returncode)})" if returncode < 0 else f"with status {returncode}"
    )
    return Outcome(status=Status.CRASHED, reason=f"the child ended {how} and no outcome")


def _tail(errors: IO[bytes]) -> str:
    """The end of what was written, which may be more than fits into memory."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4 * STDERR_KEPT))
    return errors.read().decode(errors="replace")[-STDERR_KEPT:]


def _end_late(child: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    _kill_group(child)


def _kill_group(child: subprocess.Popen[str]) -> None:
    if sys.platform == "win32":  # which has no groups of processes
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(child.pid).children(recursive=True):
                process.kill()
        child.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _close_pipes(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # what the child never read
            pipe.close()
