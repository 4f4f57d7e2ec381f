"""Thousands of trials: the parent's memory stays flat, time grows with the number, and the overhead is small.

The children do nothing here; what it takes to start a real one is told apart.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import psutil
import pytest
from noop import ENVIRONMENT, NoopCrew, measurements, trials

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.running.child import run_child
from lowrank_bench.running.crew import Crew, LocalCrew
from lowrank_bench.running.engine import Engine, Event
from lowrank_bench.running.worker import TrialJob

pytestmark = pytest.mark.timeout(3600)

COUNT = 2000
MEGABYTES, MILLISECONDS = 15, 20


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def soak(folder: Path, crew: Crew, machine: str) -> tuple[list[float], list[float]]:
    """Seconds, and megabytes of this process, at each record of a sweep."""
    seconds, megabytes, process = list[float](), list[float](), psutil.Process()

    def note(event: Event) -> None:
        if event.done > len(seconds):
            seconds.append(time.perf_counter())
            megabytes.append(process.memory_info().rss / 1e6)

    made = trials(COUNT)
    Engine(folder, ENVIRONMENT, crew=NoopCrew(crew), report=note).run(made, measurements(made, machine))
    assert len(seconds) == 2 * COUNT
    return seconds, megabytes


def per_trial(seconds: Sequence[float], part: slice) -> float:
    """Milliseconds for a trial and its measurement."""
    chosen = seconds[part]
    return 2000 * (chosen[-1] - chosen[0]) / (len(chosen) - 1)


def check(name: str, seconds: list[float], megabytes: list[float]) -> None:
    quarters = [per_trial(seconds, slice(i * COUNT // 2, (i + 1) * COUNT // 2)) for i in range(4)]
    grown = median(megabytes[-100:]) - median(megabytes[COUNT // 4 : COUNT // 4 + 100])
    whole = per_trial(seconds, slice(None))
    print(f"\n{name}: {whole:.2f} ms a trial; by quarters {quarters}; memory grew by {grown:.1f} MB")
    assert whole <= MILLISECONDS
    assert grown <= MEGABYTES
    halves = [per_trial(seconds, slice(0, COUNT)), per_trial(seconds, slice(COUNT, None))]
    assert max(halves) < 3 * min(halves), "time grows with the number of trials, not faster"


@pytest.mark.parametrize("jobs", [1, 2])
def test_on_this_machine(tmp_path: Path, jobs: int) -> None:
    check(f"local, -j {jobs}", *soak(tmp_path / "results", LocalCrew(jobs), "noop"))


def test_on_two_workers_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    from lowrank_bench.running.cluster import ClusterCrew, local_cluster

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with local_cluster(2, workers=2) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        crew = ClusterCrew(client, 2)
        (machine,) = crew.machines()
        check("dask, 2 workers", *soak(tmp_path / "results", crew, machine))


def test_what_the_start_of_a_child_takes(tmp_path: Path) -> None:
    def seconds(run: Callable[[], object]) -> Iterator[float]:
        for _ in range(5):
            start = time.perf_counter()
            run()
            yield time.perf_counter() - start

    job = TrialJob(trial=trials(1)[0], models=tmp_path)  # of no task: it ends as soon as it has begun
    taken = median(seconds(lambda: run_child(job, 1, 100, lambda stage, share: None)))
    print(f"\na child starts and ends in {taken:.2f} s on {fingerprint().machine}, Python {sys.version.split()[0]}")
