"""However a child ends, its status says so, its parent lives, and nothing of it is left.

The quick part: what needs a child of its own to be seen. tests/slow/test_faults.py runs every bad end from the command
line; which exception means what is a matter of test_worker.py.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bad_ends import EXPECTED, PLUGINS
from processes import alive

import lowrank_bench as lrb
from lowrank_bench.record import Status
from lowrank_bench.running import child, memory
from lowrank_bench.running.child import Ended, run_child
from lowrank_bench.running.memory import check_memory
from lowrank_bench.running.worker import TrialJob
from lowrank_bench.trial import Trial

LIMIT = 4.0  # GB
HANGS = 7.0  # seconds, which stand for the timeout of what hangs
CHILDREN = ("hangs", "raises", "exits", "eats_tensors")


def job(method: str, models: Path, memory: float | None = LIMIT) -> TrialJob:
    trial = Trial(task="chars36", model="charnet", method=method, budget=lrb.Budget(macs=4), recipe="none")
    return TrialJob(trial=trial, models=models, methods_folders=[PLUGINS], memory=memory)


class WhenItHangs(threading.Timer):
    """Rings as soon as the method that hangs does so, however long it took to come so far."""

    mark = Path()

    def run(self) -> None:
        if self.interval != HANGS:
            return super().run()
        while not self.mark.exists() and not self.finished.wait(0.1):
            pass
        self.function(*self.args, **self.kwargs)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """How each method ended, several at a time."""
    folder = tmp_path_factory.mktemp("ends")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("LOWRANK_BENCH_TEST_MARK", str(folder / "mark"))
        patch.setattr(WhenItHangs, "mark", folder / "mark")
        patch.setattr(threading, "Timer", WhenItHangs)

        def end(method: str) -> Ended:
            timeout = HANGS if method == "hangs" else 200
            return run_child(job(method, folder / "models"), 1, timeout, lambda *_: None)

        found = dict(zip(CHILDREN, pool.map(end, CHILDREN), strict=True))
        assert not any(alive(int(process)) for process in (folder / "mark").read_text().split())
        yield found


needs_limit = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=needs_limit) if name.startswith("eats") else name for name in CHILDREN],
)
def test_every_end_has_its_status_and_its_reason(ends: dict[str, Ended], method: str) -> None:
    status, words = EXPECTED[method]
    outcome = ends[method].outcome
    assert outcome.status is status, (outcome, ends[method].stderr)
    assert words in outcome.reason


def test_what_a_child_wrote_to_standard_error_is_kept(ends: dict[str, Ended]) -> None:
    assert "ends.py" in ends["raises"].stderr and "no luck" in ends["raises"].stderr


@needs_limit
def test_a_limit_below_what_a_child_needs_to_begin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_private_bytes", lambda: 600_000_000)
    with pytest.raises(MemoryError, match=r"limit of 0\.5 GB is below the 0\.60 GB"), memory.limited_memory(0.5):
        pass


@pytest.mark.parametrize("gigabytes", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(gigabytes: float) -> None:
    with pytest.raises(lrb.InvalidInput, match="positive number of GB"):
        check_memory(gigabytes)


def test_elsewhere_than_on_linux_a_limit_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with pytest.raises(lrb.InvalidInput, match="only Linux"):
        check_memory(4)


@pytest.mark.parametrize(
    ("returncode", "stderr", "memory_ran_out", "status"),
    [
        (-9, "", True, Status.OUT_OF_MEMORY),
        (-9, "", False, Status.CRASHED),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", False, Status.OUT_OF_MEMORY),
        (-6, "assertion failed", True, Status.CRASHED),
        (1, "", False, Status.CRASHED),
    ],
)
def test_a_child_that_the_system_killed_for_memory_is_told_from_a_crash(
    returncode: int, stderr: str, memory_ran_out: bool, status: Status
) -> None:
    assert child._without_outcome(returncode, stderr, memory_ran_out).status is status


def test_ending_the_family_ends_a_child_that_runs_and_one_that_starts_later(tmp_path: Path) -> None:
    family = child.Family()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_child, job("raises", tmp_path), 1, 100, lambda *_: None, family)
        time.sleep(0.5)
        family.end()
        with pytest.raises(child.Stopped):
            waiting.result(timeout=10)
    started = time.monotonic()
    with pytest.raises(child.Stopped):
        run_child(job("raises", tmp_path), 1, 100, lambda *_: None, family)
    assert time.monotonic() - started < 5
