"""Trials and measurements that do nothing but leave what real ones leave: for tests of all that is around them."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lowrank_bench.atomic import drafts
from lowrank_bench.compression.model import PLAN
from lowrank_bench.measurement.environment import Environment
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.running.child import Family, Stopped
from lowrank_bench.running.crew import Crew, LocalCrew, Timed, Told
from lowrank_bench.running.host import Host, Progress, Turn
from lowrank_bench.running.locks import preparation_lock, timing_lock
from lowrank_bench.trial import Measurement, Trial

ENVIRONMENT = Environment(
    machine="noop",
    cpu="none",
    cores=1,
    cgroup_cores=None,
    memory_gb=1.0,
    os="none",
    python="3",
    packages={},
    cpu_capability="none",
    onednn=False,
    torch_threads=1,
    variables={},
    governor=None,
    load=None,
)


def trials(count: int) -> list[Trial]:
    """So many trials."""
    return [Trial(task="noop", model="none", method="none", recipe="none", seed=seed) for seed in range(count)]


def measurements(of: Sequence[Trial], machine: str = "noop", processes: int = 1) -> list[Measurement]:
    """One measurement of each."""
    setting = {"machine": machine, "runtime": "eager", "threads": 1, "batch": 1, "precision": 0.1, "max_seconds": 1.0}
    return [Measurement(trial=trial.key, processes=processes, **setting) for trial in of]


@dataclass(frozen=True)
class NoopHost(Host):
    """Holds the locks that a real one holds, for ``seconds`` each, and for ever from seed ``hang_from`` on; tells in
    ``spans`` when it did what.
    """

    seconds: float = 0.0
    hang_from: float = math.inf

    def prepare(self, trial: Trial, threads: int, progress: Progress, family: Family) -> TrialRecord:
        """Leave a model."""
        with preparation_lock(family.ended), self._span("prepare"):
            self._sleep(family, trial)
            with drafts(self.models / trial.key / PLAN) as (plan,):
                plan.write_text("{}")
        return TrialRecord(key=trial.key, trial=trial, status=Status.OK, code=self.code)

    def measure(self, turns: Sequence[Turn], family: Family) -> Generator[MeasurementRecord, None, None]:
        """Leave nothing."""
        for trial, measurement, _ in turns:
            assert (self.models / trial.key / PLAN).exists()
            with timing_lock(family.ended), self._span("time"):
                self._sleep(family, trial)
            yield MeasurementRecord(key=measurement.key, measurement=measurement, status=Status.SKIPPED, code=self.code)

    def _sleep(self, family: Family, trial: Trial) -> None:
        if family.ended.wait(600 if trial.seed >= self.hang_from else self.seconds):
            raise Stopped

    @contextmanager
    def _span(self, what: str) -> Iterator[None]:
        if not self.seconds:
            yield
            return
        folder = self.folder / "spans"
        folder.mkdir(exist_ok=True)
        start, name = time.monotonic(), f"{what}-{os.getpid()}-{time.monotonic_ns()}"
        (folder / f"{name}.begun").write_text(str(start))
        yield
        (folder / name).write_text(f"{start} {time.monotonic()}")


@dataclass(frozen=True)
class NoopCrew:
    """Another crew, with no-op hosts."""

    crew: Crew = field(default_factory=LocalCrew)
    seconds: float = 0.0
    hang_from: float = math.inf

    def work(
        self, host: Host, trials: Sequence[Trial], to_time: Sequence[Timed], told: Told
    ) -> Generator[TrialRecord | MeasurementRecord, None, None]:
        """As Crew says."""
        given = {each.name: getattr(host, each.name) for each in fields(Host)}
        yield from self.crew.work(
            NoopHost(**given, seconds=self.seconds, hang_from=self.hang_from), trials, to_time, told
        )


def spans(folder: Path, what: str) -> list[tuple[float, float]]:
    """When what was done, begin and end, in order."""
    found = [path.read_text().split() for path in (folder / "spans").glob(f"{what}-*") if path.suffix != ".begun"]
    return sorted((float(start), float(end)) for start, end in found)


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two spans have time in common."""
    return first[0] < second[1] and second[0] < first[1]


def own_machine(folder: str) -> None:
    """Run on a worker: its locks are its own, as those of another host would be."""
    os.environ["LOWRANK_BENCH_LOCKS"] = tempfile.mkdtemp(dir=folder)


def threads_at_work(dask_worker: Any) -> int:
    """How many tasks a worker of dask is doing."""
    return len(dask_worker.active_threads)
