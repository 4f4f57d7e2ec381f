"""What one host does with a trial or a measurement: a child for each, and the record of how it ended."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lowrank_bench.atomic import told_of_disk
from lowrank_bench.measurement.environment import THREAD_VARIABLES, Environment
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.record import MeasurementRecord, ProcessTiming, RuntimeQuality, Status, TrialRecord
from lowrank_bench.running.child import Ended, Family, Progress, run_child
from lowrank_bench.running.locks import preparation_lock, timing_lock
from lowrank_bench.running.timing import pool
from lowrank_bench.running.worker import Outcome, TimingJob, TrialJob
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

RUN_LOCK = ".run.lock"
EXPORTS = ".exports-"
"""Prefix of the folders, among the models, in which the processes of one measurement share what they export."""
Turn = tuple[Trial, Measurement, Progress]
"""What is to be timed, and who hears how it goes."""
WAITS = "waiting for the machine"
"""A stage like others: another run may have the machine for minutes."""


@dataclass(frozen=True)
class Host:
    """Runs children over the models of one results folder; ``memory`` (GB) and ``timeout`` (seconds) hold for each."""

    folder: Path
    environment: Environment
    code: str
    timeout: float
    memory: float | None = None
    methods_folders: tuple[Path, ...] = ()

    @property
    def models(self) -> Path:
        """Where the models are."""
        return self.folder / "models"

    def prepare(self, trial: Trial, threads: int, progress: Progress, family: Family) -> TrialRecord:
        """Make a trial's model, beside whatever else is prepared on this machine, but not beside a timing; one with a
        budget in latency, which is met by timing, alone.
        """
        job = TrialJob(trial=trial, models=self.models, methods_folders=list(self.methods_folders), memory=self.memory)
        progress(WAITS, 0.0)
        timed = trial.budget is not None and trial.budget.metric == "latency"
        with (timing_lock if timed else preparation_lock)(family.ended):
            ended = run_child(job, threads, self.timeout, progress, family)
        outcome = ended.outcome
        facts = self.facts(ended, outcome.seconds, threads)
        return TrialRecord(key=trial.key, trial=trial, size=outcome.size, quality=outcome.quality, **facts)

    def measure(self, turns: Sequence[Turn], family: Family) -> Generator[MeasurementRecord, None, None]:
        """Time trials' models, each process alone on this machine; a record for each as it ends. They take turns, one
        fresh process at a time, so that those of one measurement lie apart: what lasts for a minute, such as a
        neighbour on the same memory, then widens its interval instead of shifting it. Raises NotWritten.
        """
        with self._shared_folder() as exports:
            open_ones = [_Row(self, *turn, exports=Path(exports)) for turn in turns]
            while open_ones:
                for row in [*open_ones]:
                    if record := row.next_process(family):
                        open_ones.remove(row)
                        yield record

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
    exports: Path
    timings: list[ProcessTiming] = field(default_factory=list)
    quality: RuntimeQuality | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def next_process(self, family: Family) -> MeasurementRecord | None:
        """Run one more; the record, where it was the last one or ended badly."""
        changes_top1 = arithmetic_of(self.measurement.runtime) != "float32" and get_task(self.trial.task).scored
        job = TimingJob(
            trial=self.trial,
            measurement=self.measurement,
            models=self.host.models,
            exports=self.exports,
            judge=changes_top1 and not self.timings,  # top-1 is the same in every process
            memory=self.host.memory,
        )
        self.progress(WAITS, 0.0)
        with timing_lock(family.ended):
            ended = run_child(job, self.measurement.threads, self.host.timeout, self.progress, family)
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
