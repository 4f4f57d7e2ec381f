from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement import cores
from lowrank_bench.measurement.cores import cgroup_cores, pin_cores, pinned, usable_cores, visible_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A Linux machine of 8 cores whose system files the test writes."""
    monkeypatch.setattr(cores, "SYS", tmp_path / "sys")
    monkeypatch.setattr(cores, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "visible_cores", lambda: list(range(8)))

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = Path(tmp_path, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return write


V2 = {"proc/self/cgroup": "0::/user.slice/job"}
V1 = {"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/job\n2:cpuset:/job\n0::/"}


@pytest.mark.parametrize(
    ("files", "limit", "threads"),
    [
        ({}, None, 8),
        (V2, None, 8),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "max 100000"}, None, 8),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpu.max": "250000 100000"}, 2.5, 2),
        (V2 | {"sys/fs/cgroup/user.slice/cpu.max": "50000 100000"}, 0.5, 1),
        (V2 | {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3, 3),
        (V2 | {"sys/fs/cgroup/user.slice/job/cpuset.cpus.effective": "0-2,6"}, 4, 4),
        (V2 | {"sys/fs/cgroup/cpuset.cpus.effective": "0-7", "sys/fs/cgroup/cpu.max": "9900000 100000"}, None, 8),
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "-1"}, None, 8),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            1.5,
            1,
        ),
        (V1 | {"sys/fs/cgroup/cpuset/job/cpuset.effective_cpus": "1,3"}, 2, 2),
    ],
)
def test_the_tightest_cgroup_limit_holds_and_a_fraction_of_a_core_runs_no_thread(machine, files, limit, threads):
    machine(files)
    assert cgroup_cores() == limit
    assert usable_cores() == threads


@pytest.mark.parametrize(("n", "pinned"), [(1, (3,)), (2, (2, 3)), (4, (0, 1, 2, 3)), (6, (0, 1, 2, 3, 6, 7))])
def test_pinning_takes_one_thread_of_each_physical_core_first_and_core_0_last(machine, monkeypatch, n, pinned):
    siblings = {
        f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 4},{i % 4 + 4}" for i in range(8)
    }
    machine(siblings)
    bound = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append((pid, sorted(cores))), raising=False)
    assert pin_cores(n) == pinned
    assert bound == [(0, list(pinned))]


@pytest.mark.parametrize("n", [0, -1, 9])
def test_pinning_to_cores_that_do_not_exist_is_refused(machine, n):
    with pytest.raises(InvalidInput, match="1 to 8"):
        pin_cores(n)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot pin")
def test_what_is_pinned_runs_on_those_cores_only():
    seen = []
    thread = Thread(target=lambda: seen.extend([pin_cores(1), tuple(visible_cores())]))  # only its thread is bound
    thread.start()
    thread.join()
    pinned, visible = seen
    assert len(pinned) == 1 and pinned == visible


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot pin")
def test_all_threads_are_pinned_for_a_while_and_then_free_again():
    done = Event()
    running, started = (Thread(target=done.wait, daemon=True) for _ in range(2))
    running.start()
    before = visible_cores()
    with pinned(1):
        (core,) = visible_cores()
        assert os.sched_getaffinity(running.native_id) == {core}
        started.start()
        assert os.sched_getaffinity(started.native_id) == {core}
    assert visible_cores() == before
    for thread in (running, started):
        assert sorted(os.sched_getaffinity(thread.native_id)) == before
    with pytest.raises(InvalidInput, match="cannot pin"), pinned(10**6):
        pass
    done.set()
    running.join(), started.join()
