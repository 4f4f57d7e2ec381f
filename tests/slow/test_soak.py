"""Thousands of trials: the parent's memory stays flat, time grows with the number, and the overhead is small.

The children do nothing here; what it takes to start a real one is told apart.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import pytest
from campaign import Part
from noop import ENVIRONMENT, NoopCrew, measurements, own_machine, trials

from lowrank_bench.running.child import run_child
from lowrank_bench.running.crew import Crew, LocalCrew
from lowrank_bench.running.engine import Engine, Event
from lowrank_bench.running.worker import TrialJob

pytestmark = pytest.mark.timeout(3600)

COUNT, STARTS = 2000, 5
MEGABYTES, MILLISECONDS = 15, 20
COLUMNS = [
    "Crew",
    "Trials",
    "ms a trial",
    "CPU of client, scheduler and store",
    "so for a quarter of them",
    "memory grew by",
]


PART = Part("Soak", "test_soak.py", COLUMNS)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))


@dataclass
class Soak:
    """What this process had used at the start of a sweep and at each record: seconds, of those its own, megabytes."""

    seconds: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def run(self, folder: Path, crew: Crew, machine: str, count: int = COUNT) -> Soak:
        """A sweep of so many trials, each with its measurement."""
        process, made = psutil.Process(), trials(count)

        def look() -> None:
            self.seconds.append(time.perf_counter())
            self.own.append(time.process_time())
            self.megabytes.append(process.memory_info().rss / 1e6)

        def note(event: Event) -> None:
            if event.done == len(self.seconds):
                look()

        look()
        Engine(folder, ENVIRONMENT, crew=NoopCrew(crew), report=note).run(made, measurements(made, machine))
        assert len(self.seconds) == 2 * count + 1
        return self


def soaked(name: str, folder: Path, crew: Crew, machine: str) -> None:
    """Fill a row of the table: a sweep, after another one of a quarter of its trials."""
    less = per_trial(Soak().run(folder / "less", crew, machine, COUNT // 4).own)
    soak = Soak().run(folder / "more", crew, machine)
    whole, own = per_trial(soak.seconds), per_trial(soak.own)
    grown = median(soak.megabytes[-100:]) - median(soak.megabytes[COUNT // 4 : COUNT // 4 + 100])
    print(f"\n{name}: {whole:.2f} ms a trial, of this process {own:.2f}, of fewer {less:.2f}; grew by {grown:.1f} MB")
    told = [f"{COUNT:,}", f"{whole:.1f}", f"{own:.1f} ms", f"{less:.1f} ms", f"{grown:.1f} MB"]
    with PART.row(name) as row:
        row |= zip(COLUMNS[1:], told, strict=True)
        assert own <= MILLISECONDS, "what the work costs, however busy the machine is"
        assert own <= 1.5 * less, "time grows with the number of trials, not faster"
        assert grown <= MEGABYTES


def per_trial(spent: list[float]) -> float:
    """Milliseconds for a trial and its measurement."""
    return 2000 * (spent[-1] - spent[0]) / (len(spent) - 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_on_this_machine(tmp_path: Path, jobs: int) -> None:
    soaked(f"this machine, -j {jobs}", tmp_path, LocalCrew(jobs), "noop")


def test_on_two_workers_of_a_cluster(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    from lowrank_bench.running.cluster import ClusterCrew, local_cluster

    with local_cluster(2, workers=2) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        client.run(own_machine, str(tmp_path))
        crew = ClusterCrew(client, 2)
        (machine,) = crew.machines()
        soaked("dask, 2 workers", tmp_path, crew, machine)


def test_what_the_start_of_a_child_takes(tmp_path: Path) -> None:
    job = TrialJob(trial=trials(1)[0], models=tmp_path)  # of no task: it ends as soon as it has begun
    start, before = time.perf_counter(), os.times()
    for _ in range(STARTS):
        run_child(job, 1, 100, lambda *_: None)
    after = os.times()
    whole = (time.perf_counter() - start) / STARTS
    own = (after.children_user + after.children_system - before.children_user - before.children_system) / STARTS
    with PART.row("apart: a child starts and ends, and what it costs itself") as row:
        row |= zip(COLUMNS[1:], [f"{STARTS}", f"{1000 * whole:,.0f}", f"{1000 * own:,.0f} ms", "", ""], strict=True)
