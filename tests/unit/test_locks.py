"""Preparation shares the machine, timing has it alone, and a lock ends with its holder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

import lowrank_bench as lrb
from lowrank_bench.running.locks import LOCKS_VARIABLE, ROOM, Stopped, preparation_lock, timing_lock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no shared locks")

Lock = Callable[[threading.Event], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))


def enters(lock: Lock, within: float) -> bool:
    """Whether another process, or a thread with files of its own, gets the lock in so many seconds."""
    stop, entered = threading.Event(), threading.Event()

    def enter() -> None:
        with suppress(Stopped), lock(stop):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    found = entered.wait(within)
    stop.set()
    thread.join()
    return found


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [
        (preparation_lock, preparation_lock, True),
        (preparation_lock, timing_lock, False),
        (timing_lock, preparation_lock, False),
        (timing_lock, timing_lock, False),
    ],
)
def test_only_preparation_goes_side_by_side(held: Lock, wanted: Lock, free: bool) -> None:
    with held(threading.Event()):
        assert enters(wanted, 30 if free else 0.3) is free
    assert enters(wanted, 30)


def test_a_timing_that_waits_is_not_overtaken_by_later_preparation() -> None:
    order: list[str] = []

    def time_it() -> None:
        with timing_lock():
            order.append("timing")

    def prepare() -> None:
        with preparation_lock():
            order.append("preparation")

    with preparation_lock():
        timing, later = threading.Thread(target=time_it), threading.Thread(target=prepare)
        timing.start()
        time.sleep(0.2)
        later.start()
        time.sleep(0.2)
        assert order == []
    timing.join()
    later.join()
    assert order == ["timing", "preparation"]


@pytest.mark.parametrize("wanted", [preparation_lock, timing_lock])
def test_whoever_waits_can_say_so_once_and_only_then(wanted: Any) -> None:
    said: list[str] = []
    with wanted(waiting=lambda: said.append("waiting")):
        assert said == []
    with timing_lock():
        stop = threading.Event()
        thread = threading.Thread(target=lambda: _enter(wanted(stop, lambda: said.append("waiting"))))
        thread.start()
        while not said:
            time.sleep(0.01)
        time.sleep(0.1)
        stop.set()
        thread.join()
    assert said == ["waiting"]


def _enter(lock: AbstractContextManager[None]) -> None:
    with suppress(Stopped), lock:
        pass


def test_whoever_waits_hardly_disturbs_what_is_timed() -> None:
    class TenSeconds(threading.Event):
        pauses: ClassVar[list[float]] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.pauses.append(timeout or 0.0)
            return sum(self.pauses) > 10

    stop = TenSeconds()
    with timing_lock(), pytest.raises(Stopped), preparation_lock(stop):
        pass
    assert 10 < len(stop.pauses) < 40 and stop.pauses[0] < 0.01


HOLD = """
import sys, time
from lowrank_bench.running.locks import timing_lock
with timing_lock():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path: Path) -> None:
    environment = os.environ | {"LOWRANK_BENCH_LOCKS": str(tmp_path)}
    holder = subprocess.Popen([sys.executable, "-P", "-c", HOLD], stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    assert not enters(preparation_lock, 0.3)
    holder.kill()
    holder.wait()
    assert enters(preparation_lock, 30) and enters(timing_lock, 30)
    holder.stdout.close()


def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / ROOM).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(lrb.InvalidInput, match="cannot be locked"), preparation_lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_for_locks_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCKS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(lrb.InvalidInput, match=f"make the folder that {LOCKS_VARIABLE} names"), preparation_lock():
        pass
