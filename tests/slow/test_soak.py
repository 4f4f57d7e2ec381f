"""Thousands of trials: the parent's memory stays flat, time grows with the number, and the overhead is small.

The children do nothing here; what it takes to start a real one is told apart.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import pytest
from campaign import campaign
from noop import ENVIRONMENT, NoopCrew, measurements, own_machine, trials

from lowrank_bench.running.child import run_child
from lowrank_bench.running.crew import Crew, LocalCrew
from lowrank_bench.running.engine import Engine, Event
from lowrank_bench.running.worker import TrialJob

pytestmark = pytest.mark.timeout(3600)

COUNT, STARTS = 2000, 5
MEGABYTES, MILLISECONDS = 15, 20
COLUMNS = ["Crew", "Trials", "ms a trial", "of it CPU of the parent", "first half", "second half", "parent grew by"]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, ...]]]:
    with campaign(request, "Soak", COLUMNS) as rows:
        yield rows


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@dataclass
class Soak:
    """What this process had used at each record of a sweep: seconds, of those its own, and megabytes."""

    seconds: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def run(self, folder: Path, crew: Crew, machine: str) -> None:
        process, made = psutil.Process(), trials(COUNT)

        def note(event: Event) -> None:
            if event.done > len(self.seconds):
                self.seconds.append(time.perf_counter())
                self.own.append(time.process_time())
                self.megabytes.append(process.memory_info().rss / 1e6)

        self.seconds, self.own, self.megabytes = [], [], []
        Engine(folder, ENVIRONMENT, crew=NoopCrew(crew), report=note).run(made, measurements(made, machine))
        assert len(self.seconds) == 2 * COUNT

    def check(self, name: str) -> tuple[str, ...]:
        """A row of the table; a trial is made, and timed."""
        early = self.megabytes[COUNT // 4 : COUNT // 4 + 100]
        grown = median(self.megabytes[-100:]) - median(early)
        whole, own = (per_trial(spent, slice(None)) for spent in (self.seconds, self.own))
        halves = [per_trial(self.own, part) for part in (slice(0, COUNT), slice(COUNT, None))]
        print(f"\n{name}: {whole:.2f} ms a trial, of this process {own:.2f} {halves}; grew by {grown:.1f} MB")
        assert own <= MILLISECONDS, "what the work costs, however busy the machine is"
        assert grown <= MEGABYTES
        assert max(halves) < 3 * min(halves), "time grows with the number of trials, not faster"
        return name, f"{COUNT:,}", f"{whole:.1f}", f"{own:.1f}", *(f"{half:.1f}" for half in halves), f"{grown:.1f} MB"


def per_trial(spent: list[float], part: slice) -> float:
    """Milliseconds for a trial and its measurement."""
    chosen = spent[part]
    return 2000 * (chosen[-1] - chosen[0]) / (len(chosen) - 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_on_this_machine(tmp_path: Path, table: list[tuple[str, ...]], jobs: int) -> None:
    soak = Soak()
    soak.run(tmp_path / "results", LocalCrew(jobs), "noop")
    table.append(soak.check(f"this machine, -j {jobs}"))


def test_on_two_workers_of_a_cluster(tmp_path: Path, table: list[tuple[str, ...]]) -> None:
    distributed = pytest.importorskip("distributed")
    from lowrank_bench.running.cluster import ClusterCrew, local_cluster

    soak = Soak()
    with local_cluster(2, workers=2) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        client.run(own_machine)
        crew = ClusterCrew(client, 2)
        (machine,) = crew.machines()
        soak.run(tmp_path / "results", crew, machine)
    table.append(soak.check("dask: client and scheduler here, 2 workers"))


def test_what_the_start_of_a_child_takes(tmp_path: Path, table: list[tuple[str, ...]]) -> None:
    job = TrialJob(trial=trials(1)[0], models=tmp_path)  # of no task: it ends as soon as it has begun
    start, before = time.perf_counter(), os.times()
    for _ in range(STARTS):
        run_child(job, 1, 100, lambda stage, share: None)
    after = os.times()
    whole = (time.perf_counter() - start) / STARTS
    own = (after.children_user + after.children_system - before.children_user - before.children_system) / STARTS
    table.append(
        (
            "apart: a child starts and ends; its own CPU",
            f"{STARTS}",
            f"{1000 * whole:,.0f}",
            f"{1000 * own:,.0f}",
            "",
            "",
            "",
        )
    )
