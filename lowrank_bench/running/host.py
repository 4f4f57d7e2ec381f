"""What one host does with trials and measurements: children that do them, and the record of how each ended."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lowrank_bench.atomic import told_of_disk
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.environment import THREAD_VARIABLES, Environment
from lowrank_bench.measurement.memory import forget_peak
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.record import MeasurementRecord, ProcessTiming, RuntimeQuality, Status, TrialRecord
from lowrank_bench.running.child import Ended, Family, run_child
from lowrank_bench.running.locks import preparation_lock, timing_lock
from lowrank_bench.running.timing import pool
from lowrank_bench.running.worker import Outcome, Row, TimingJob, TrialJob
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

RUN_LOCK = ".run.lock"
EXPORTS = ".exports-"
"""Prefix of the folders, among the models, in which the processes of some measurements share what they export."""
Progress = Callable[[str, float], None]
"""(stage, its share done from 0 to 1)."""
Turn = tuple[Trial, Measurement, Progress]
"""What is to be timed, and who hears how it goes."""
WAITS = "waiting for the machine"
"""A stage like others: another run may have the machine for minutes."""


@dataclass(frozen=True)
class Host:
    """Runs children over the models of one results folder; ``memory`` (GB) and ``timeout`` (seconds) hold for each.
    ``working``: the folder in which they work, from which relative paths count and own modules are imported; None:
    that of this process.
    """

    folder: Path
    environment: Environment
    code: str
    timeout: float
    memory: float | None = None
    methods_folders: tuple[Path, ...] = ()
    working: Path | None = None

    @property
    def models(self) -> Path:
        """Where the models are."""
        return self.folder / "models"

    def prepare(self, trial: Trial, threads: int, progress: Progress, family: Family) -> TrialRecord:
        """Make a trial's model, beside whatever else is prepared on this machine, but not beside a timing; one with a
        budget in latency, which is met by timing, alone and on all cores.
        """
        job = TrialJob(trial=trial, models=self.models, methods_folders=list(self.methods_folders), memory=self.memory)
        progress(WAITS, 0.0)
        timed = trial.budget is not None and trial.budget.metric == "latency"
        threads = usable_cores() if timed else threads
        with (timing_lock if timed else preparation_lock)(family.ended):
            ended = run_child(
                job, threads, self.timeout, lambda stage, share, _: progress(stage, share), family, self.working
            )
        outcome = ended.outcome
        facts = self.facts(ended, outcome.seconds, threads)
        return TrialRecord(key=trial.key, trial=trial, size=outcome.size, quality=outcome.quality, **facts)

    def measure(self, turns: Sequence[Turn], family: Family) -> Generator[MeasurementRecord, None, None]:
        """Time trials' models, each process alone on this machine; a record for each as it ends. Those of one dense
        model in one setting share a process, one after another. The processes take turns, each a fresh one, so that
        those of one measurement lie apart: what lasts for a minute, such as a neighbour on the same memory, then widens
        its interval instead of shifting it. What fails in company is tried alone: a failure is a row's own. Raises
        NotWritten.
        """
        with self._shared_folder() as exports:
            waiting = deque(_companies([_Row(self, *turn) for turn in turns]))
            while waiting:
                rows, left = waiting.popleft(), list[_Row]()
                for row, ended in zip(rows, self._time(rows, Path(exports), family), strict=True):
                    if len(rows) > 1 and not ended.outcome.status.well:
                        waiting.append([row])
                    elif record := row.add(ended):
                        yield record
                    else:
                        left.append(row)
                if left:
                    waiting.append([*left[1:], left[0]])  # another one begins the next process

    def _time(self, rows: Sequence[_Row], exports: Path, family: Family) -> list[Ended]:
        """How each ended in one more process."""
        wanted, threads = [row.wanted() for row in rows], rows[0].measurement.threads
        job = TimingJob(rows=wanted, models=self.models, exports=exports, memory=self.memory)
        for row in rows:
            row.progress(WAITS, 0.0)
        with timing_lock(family.ended):
            ended = run_child(
                job,
                threads,
                self.timeout * len(rows),
                lambda stage, share, n: rows[n].progress(stage, share),
                family,
                self.working,
            )
        outcomes = ended.outcome.rows or [ended.outcome] * len(rows)  # none: the process itself came to a bad end
        return [Ended(outcome, "" if outcome.status.well else ended.stderr) for outcome in outcomes]

    def skip(self, item: Trial | Measurement, reason: str) -> TrialRecord | MeasurementRecord:
        """The record of what no child need try."""
        facts = self.facts(Ended(Outcome(status=Status.SKIPPED, reason=reason), ""), {}, self.environment.torch_threads)
        if isinstance(item, Trial):
            return TrialRecord(key=item.key, trial=item, **facts)
        return MeasurementRecord(key=item.key, measurement=item, **facts)

    def _shared_folder(self) -> TemporaryDirectory[str]:
        with told_of_disk(self.models):
            self.models.mkdir(parents=True, exist_ok=True)
            return TemporaryDirectory(prefix=EXPORTS, dir=self.models, ignore_cleanup_errors=True)

    def facts(self, ended: Ended, seconds: dict[str, float], threads: int) -> dict[str, Any]:
        """What the record of a trial or a measurement says of how it was done, in children with so many threads."""
        variables = self.environment.variables | dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment = self.environment.model_copy(update={"torch_threads": threads, "variables": variables})
        return {
            "status": ended.outcome.status,
            "reason": ended.outcome.reason,
            "seconds": seconds,
            "environment": environment.model_dump(mode="json"),
            "code": self.code,
            "stderr": ended.stderr,
        }


@dataclass
class _Row:
    """One measurement while it is made: what its processes found so far."""

    host: Host
    trial: Trial
    measurement: Measurement
    progress: Progress
    timings: list[ProcessTiming] = field(default_factory=list)
    quality: RuntimeQuality | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def company(self) -> Hashable:
        """What it has in common with those that can be timed in one process."""
        calibrated = self.trial.seed if arithmetic_of(self.measurement.runtime) == "int8" else None
        return self.trial.task, self.trial.model, calibrated, self.measurement.model_copy(update={"trial": ""})

    def wanted(self) -> Row:
        """What its next process is asked for."""
        changes_top1 = arithmetic_of(self.measurement.runtime) != "float32" and get_task(self.trial.task).scored
        judge = changes_top1 and not self.timings  # top-1 is the same in every process
        return Row(trial=self.trial, measurement=self.measurement, judge=judge)

    def add(self, ended: Ended) -> MeasurementRecord | None:
        """Take what a process found; the record, where it was the last one or ended badly."""
        for stage, seconds in ended.outcome.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.quality = self.quality or ended.outcome.runtime_quality
        if ended.outcome.timing is not None:
            self.timings.append(ended.outcome.timing)
            if len(self.timings) < self.measurement.processes:
                return None
        return MeasurementRecord(
            key=self.measurement.key,
            measurement=self.measurement,
            timing=None if ended.outcome.timing is None else pool(self.timings),
            quality=self.quality,
            **self.host.facts(ended, self.seconds, self.measurement.threads),
        )


def _companies(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows that are timed in one process; each alone where the memory of one could not be told from another's."""
    if not forget_peak():
        return [[row] for row in rows]
    found = defaultdict[Hashable, list[_Row]](list)
    for row in rows:
        found[row.company].append(row)
    return [*found.values()]
