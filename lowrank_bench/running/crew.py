"""Who does the work of a run, and the one that does it here: preparation side by side, timing one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.running.child import Family
from lowrank_bench.running.host import Host
from lowrank_bench.trial import Measurement, Trial

# Measurements that take turns: enough that five processes of one lie minutes apart, few enough that an interruption
# costs minutes.
ROUND = 8

Timed = tuple[Trial, Measurement]
Told = Callable[[str, str, float], None]
"""(what is being done, its stage, share done from 0 to 1)."""


class Crew(Protocol):
    """Does trials and measurements somewhere."""

    def work(
        self, host: Host, trials: Sequence[Trial], to_time: Sequence[Timed], told: Told
    ) -> Generator[TrialRecord | MeasurementRecord, None, None]:
        """A record for each as it ends. What belongs to one of ``trials`` is timed after it, and only where that went
        well. Closing the iterator ends whatever runs. Raises NotWritten where a disk is full.
        """


class LocalCrew:
    """This machine: at most ``jobs`` preparations at a time, which divide its cores; then the timings, a
    process at a time.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs

    def work(
        self, host: Host, trials: Sequence[Trial], to_time: Sequence[Timed], told: Told
    ) -> Generator[TrialRecord | MeasurementRecord, None, None]:
        """As Crew says."""
        family, made = Family(), dict[str, Status]()
        ended: SimpleQueue[Future[TrialRecord]] = SimpleQueue()
        threads = max(1, usable_cores() // self.jobs)
        pool = ThreadPoolExecutor(self.jobs)
        try:
            waited = [pool.submit(host.prepare, trial, threads, partial(told, str(trial)), family) for trial in trials]
            for future in waited:
                future.add_done_callback(ended.put)
            for _ in waited:
                record = ended.get().result()  # in order of completion: what went well before a fault is kept
                made[record.key] = record.status
                yield record
            timed = [
                (trial, measurement, partial(told, f"{trial} on {measurement.setting}"))
                for trial, measurement in to_time
                if made.get(trial.key, Status.OK) is Status.OK
            ]
            for start in range(0, len(timed), ROUND):
                yield from host.measure(timed[start : start + ROUND], family)
        finally:
            family.end()
            pool.shutdown(cancel_futures=True)
