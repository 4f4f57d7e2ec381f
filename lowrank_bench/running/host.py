"""What one host does with a trial or a measurement: a child for each, and the record of how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lowrank_bench.atomic import told_of_disk
from lowrank_bench.measurement.environment import Environment
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.record import MeasurementRecord, ProcessTiming, RuntimeQuality, TrialRecord
from lowrank_bench.running.child import Ended, Family, Progress, run_child
from lowrank_bench.running.locks import preparation_lock, timing_lock
from lowrank_bench.running.timing import pool
from lowrank_bench.running.worker import TimingJob, TrialJob
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

RUN_LOCK = ".run.lock"
EXPORTS = ".exports-"
"""Prefix of the folders, among the models, in which the processes of one measurement share what they export."""
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
        facts = self._facts(ended, outcome.seconds)
        return TrialRecord(key=trial.key, trial=trial, size=outcome.size, quality=outcome.quality, **facts)

    def measure(self, trial: Trial, measurement: Measurement, progress: Progress, family: Family) -> MeasurementRecord:
        """Time a trial's model, alone on this machine, in as many fresh processes as are wanted. Raises NotWritten."""
        changes_top1 = arithmetic_of(measurement.runtime) != "float32" and get_task(trial.task).scored
        timings: list[ProcessTiming] = []
        quality: RuntimeQuality | None = None
        seconds: dict[str, float] = {}
        progress(WAITS, 0.0)
        with timing_lock(family.ended), self._shared_folder() as exports:
            for number in range(measurement.processes):
                judge = changes_top1 and number == 0  # top-1 is the same in every process
                job = TimingJob(
                    trial=trial,
                    measurement=measurement,
                    models=self.models,
                    exports=Path(exports),
                    judge=judge,
                    memory=self.memory,
                )
                ended = run_child(job, measurement.threads, self.timeout, progress, family)
                seconds = {stage: seconds.get(stage, 0.0) + s for stage, s in ended.outcome.seconds.items()}
                if ended.outcome.timing is None:
                    break
                timings.append(ended.outcome.timing)
                quality = quality or ended.outcome.runtime_quality
        complete = len(timings) == measurement.processes
        return MeasurementRecord(
            key=measurement.key,
            measurement=measurement,
            timing=pool(timings) if complete else None,
            quality=quality,
            **self._facts(ended, seconds),
        )

    def _shared_folder(self) -> TemporaryDirectory[str]:
        with told_of_disk(self.models):
            self.models.mkdir(parents=True, exist_ok=True)
            return TemporaryDirectory(prefix=EXPORTS, dir=self.models, ignore_cleanup_errors=True)

    def _facts(self, ended: Ended, seconds: dict[str, float]) -> dict[str, Any]:
        return {
            "status": ended.outcome.status,
            "reason": ended.outcome.reason,
            "seconds": seconds,
            "environment": self.environment.model_dump(mode="json"),
            "code": self.code,
            "stderr": ended.stderr,
        }
