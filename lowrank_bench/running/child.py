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
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from lowrank_bench.measurement.environment import THREAD_VARIABLES
from lowrank_bench.record import Status
from lowrank_bench.running.worker import LINE, Job, Outcome

STDERR_KEPT = 4000


@dataclass(frozen=True)
class Ended:
    """A child's outcome, and the end of what it wrote to standard error where that was not a good one."""

    outcome: Outcome
    stderr: str


def run_child(job: Job, threads: int, timeout: float, progress: Callable[[str, float], None]) -> Ended:
    """Run a job in a child with so many threads, at most ``timeout`` seconds; whatever it does, an outcome comes back.

    The parent sleeps in a read meanwhile. On any way out, Ctrl-C too, the child's whole process group is gone.
    """
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [
        sys.executable,
        "-P",
        "-m",
        "lowrank_bench.running.worker",
    ]  # -P: in a clone, ./lowrank_bench has no methods
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        late = threading.Event()
        alarm = threading.Timer(timeout, _end_late, (child, late))
        alarm.start()
        try:
            outcome = _listen(child, job, progress)
        finally:
            alarm.cancel()
            _kill_group(child)
            child.wait()
        errors.seek(0)
        stderr = errors.read()[-STDERR_KEPT:]
    if late.is_set():
        outcome = Outcome(status=Status.TIMEOUT, reason=f"not done after {timeout:g} s")
    elif outcome is None:
        outcome = Outcome(
            status=Status.CRASHED, reason=f"the child ended with status {child.returncode} and no outcome"
        )
    return Ended(outcome, "" if outcome.status in (Status.OK, Status.SKIPPED) else stderr)


def timing_lock() -> FileLock:
    """One lock for the whole machine: what is timed is alone on it."""
    return FileLock(Path(tempfile.gettempdir()) / "lowrank-bench-timing.lock", mode=0o666)


def _listen(child: subprocess.Popen[str], job: Job, progress: Callable[[str, float], None]) -> Outcome | None:
    assert child.stdin is not None and child.stdout is not None  # both are pipes
    with contextlib.suppress(BrokenPipeError):  # a child that died at once says so by its empty output
        child.stdin.write(job.model_dump_json() + "\n")
        child.stdin.flush()
    for text in child.stdout:
        try:
            line = LINE.validate_json(text)
        except ValidationError:
            continue  # a half-written line of a child that is being killed
        if isinstance(line, Outcome):
            return line
        progress(line.stage, line.share)
    return None


def _end_late(child: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    _kill_group(child)


def _kill_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
