"""What of a sweep is missing, and getting it done: one child at a time, one record as soon as each ends."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lowrank_bench.compression import registry
from lowrank_bench.compression.model import PLAN
from lowrank_bench.errors import InvalidInput, InvalidRecord
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.environment import Environment
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.record import MeasurementRecord, ProcessTiming, RuntimeQuality, Status, TrialRecord
from lowrank_bench.running.child import Ended, run_child, timing_lock
from lowrank_bench.running.timing import pool
from lowrank_bench.running.worker import Outcome, TimingJob, TrialJob
from lowrank_bench.store import Store, latest
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

DONE = (Status.OK, Status.SKIPPED)


@dataclass(frozen=True)
class Event:
    """What the engine is doing: item number ``done`` of ``total``, a line that names it, its stage and share."""

    done: int
    total: int
    title: str
    stage: str = ""
    share: float = 0.0


@dataclass
class Summary:
    """What a run came to."""

    ran: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Engine:
    """Runs trials and measurements into one results folder; what is recorded there is not done again."""

    def __init__(
        self,
        folder: Path,
        environment: Environment,
        *,
        timeout: float = math.inf,
        retry: Sequence[Status] = (),
        methods_folders: Sequence[Path] = (),
        report: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """``timeout``: seconds for each child; ``retry``: recorded statuses to try again. Raises InvalidRecord."""
        self.store, self.models = Store(folder), folder / "models"
        self.environment, self.code = environment, code_fingerprint()
        self.timeout, self.retry, self.methods_folders = timeout, tuple(retry), list(methods_folders)
        self.report = report

    def run(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> Summary:
        """Do what is missing: trials first, then measurements of those that went well. Raises InvalidRecord while
        another run holds the folder.
        """
        lock = FileLock(self.store.folder / ".run.lock", timeout=0)
        try:
            with lock:
                return self._run(trials, measurements)
        except Timeout:
            raise InvalidRecord(
                f"{self.store.folder} is in use by another run: wait for it, or choose another --out"
            ) from None

    def _run(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> Summary:
        known = latest(self.store.records())
        by_key = {trial.key: trial for trial in trials}
        to_measure = [m for m in measurements if self._missing(known.get(m.key))]
        needed = {m.trial for m in to_measure}
        to_try = [
            t
            for t in trials
            if self._missing(known.get(t.key)) or (t.key in needed and self._model_lost(t, known.get(t.key)))
        ]
        total, summary = len(to_try) + len(to_measure), Summary()
        summary.kept = len(trials) + len(measurements) - total
        for number, trial in enumerate(to_try):
            record = self._try(trial, self._reporter(number, total, str(trial)))
            self.store.append(record)
            known[record.key] = record
            _count(summary, record, str(trial))
        for number, measurement in enumerate(to_measure, start=len(to_try)):
            trial, made = by_key[measurement.trial], known[measurement.trial]
            if made.status is not Status.OK:
                continue  # the trial's own record says why there is nothing to time
            title = f"{trial} on {measurement.setting}"
            timed = self._measure(trial, measurement, self._reporter(number, total, title))
            self.store.append(timed)
            _count(summary, timed, title)
        self.report(Event(total, total, "done"))
        return summary

    def _reporter(self, done: int, total: int, title: str) -> Callable[[str, float], None]:
        return lambda stage, share: self.report(Event(done, total, title, stage, share))

    def _missing(self, record: TrialRecord | MeasurementRecord | None) -> bool:
        return record is None or record.status in self.retry

    def _model_lost(self, trial: Trial, record: TrialRecord | MeasurementRecord | None) -> bool:
        return record is not None and record.status is Status.OK and not (self.models / trial.key / PLAN).exists()

    def _try(self, trial: Trial, progress: Callable[[str, float], None]) -> TrialRecord:
        job = TrialJob(trial=trial, models=self.models, methods_folders=self.methods_folders)
        ended = run_child(job, usable_cores(), self.timeout, progress)
        outcome = ended.outcome
        return TrialRecord(
            key=trial.key,
            trial=trial,
            size=outcome.size,
            quality=outcome.quality,
            **self._facts(ended, outcome.seconds),
        )

    def _measure(
        self, trial: Trial, measurement: Measurement, progress: Callable[[str, float], None]
    ) -> MeasurementRecord:
        changes_top1 = arithmetic_of(measurement.runtime) != "float32" and get_task(trial.task).scored
        timings: list[ProcessTiming] = []
        quality: RuntimeQuality | None = None
        seconds: dict[str, float] = {}
        with timing_lock():
            for number in range(measurement.processes):
                judge = changes_top1 and number == 0  # top-1 is the same in every process
                job = TimingJob(trial=trial, measurement=measurement, models=self.models, judge=judge)
                ended = run_child(job, measurement.threads, self.timeout, progress)
                seconds = {stage: seconds.get(stage, 0.0) + s for stage, s in ended.outcome.seconds.items()}
                if ended.outcome.timing is None:
                    break
                timings.append(ended.outcome.timing)
                quality = quality or ended.outcome.runtime_quality
        complete = len(timings) == measurement.processes
        facts = self._facts(ended, seconds)
        return MeasurementRecord(
            key=measurement.key,
            measurement=measurement,
            timing=pool(timings) if complete else None,
            quality=quality,
            **facts,
        )

    def _facts(self, ended: Ended, seconds: dict[str, float]) -> dict[str, Any]:
        outcome: Outcome = ended.outcome
        return {
            "status": outcome.status,
            "reason": outcome.reason,
            "seconds": seconds,
            "environment": self.environment.model_dump(mode="json"),
            "code": self.code,
            "stderr": ended.stderr,
        }


def select(
    trials: Sequence[Trial], measurements: Sequence[Measurement], pattern: str
) -> tuple[list[Trial], list[Measurement]]:
    """Those trials whose line or method matches a shell pattern, and their measurements. Raises InvalidInput where none
    does.
    """
    chosen = [t for t in trials if fnmatch.fnmatch(str(t), pattern) or fnmatch.fnmatch(t.method, pattern)]
    if not chosen:
        lines = "; ".join(str(trial) for trial in trials)
        raise InvalidInput(
            f"--only {pattern!r} matches no trial; a pattern such as '*tucker*' is matched against: {lines}"
        )
    keys = {trial.key for trial in chosen}
    return chosen, [m for m in measurements if m.trial in keys]


def code_fingerprint() -> str:
    """Twelve hexadecimal digits over the source of the package and its methods, recorded beside every result."""
    digest = hashlib.sha256()
    for package in ("lowrank_bench", registry.BUILT_IN):
        for path in sorted(Path(importlib.import_module(package).__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _count(summary: Summary, record: TrialRecord | MeasurementRecord, title: str) -> None:
    summary.ran += 1
    if record.status is Status.SKIPPED:
        summary.skipped.append(f"{title}: {record.reason}")
    elif record.status is not Status.OK:
        summary.failed.append(f"{title}: {record.status} ({record.reason})")
