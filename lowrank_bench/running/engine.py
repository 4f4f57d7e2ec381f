"""What of a sweep is missing, and getting it done: one record as soon as each trial or measurement ends."""

from __future__ import annotations

import fnmatch
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from lowrank_bench.atomic import remove_drafts
from lowrank_bench.compression.model import PLAN
from lowrank_bench.errors import (
    DataMissing,
    InvalidInput,
    InvalidPlan,
    InvalidRecord,
    LowRankBenchError,
    RuntimeMissing,
)
from lowrank_bench.measurement.environment import Environment
from lowrank_bench.measurement.runtimes import available_runtimes
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.running.code import code_fingerprint
from lowrank_bench.running.crew import Crew, LocalCrew, Timed
from lowrank_bench.running.host import EXPORTS, RUN_LOCK, Host
from lowrank_bench.running.ready import Pair, Skipped, as_recorded, pair_of, set_aside
from lowrank_bench.running.stages import remove_stages
from lowrank_bench.store import End, Store
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import CONTROL, Measurement, Trial


@dataclass(frozen=True)
class Event:
    """What the engine is doing: ``done`` items of ``total``, a line that names one, its stage and share."""

    done: int
    total: int
    title: str
    stage: str = ""
    share: float = 0.0


@dataclass
class Summary:
    """What a run came to; ``failed_before``: what is recorded as failed and was not tried again."""

    ran: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)
    failed_before: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether all that was asked for is done or skipped."""
        return not (self.failed or self.failed_before)


class Engine:
    """Runs trials and measurements into one results folder; what is recorded there is not done again."""

    def __init__(
        self,
        folder: Path,
        environment: Environment,
        *,
        timeout: float = math.inf,
        memory: float | None = None,
        retry: Sequence[Status] = (),
        methods_folders: Sequence[Path] = (),
        crew: Crew | None = None,
        lacking: Callable[[Iterable[Trial]], Mapping[Pair, str]] = lambda trials: {},
        report: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """``timeout``: seconds for each child; ``memory``: GB for each; ``retry``: recorded statuses to try again;
        ``crew``: who does it, by default this machine, one child at a time; ``lacking``: says of missing trials whose
        data are not here, and why, before any is begun. Raises InvalidRecord.
        """
        self.store = Store(folder)
        folders = tuple(path.resolve() for path in methods_folders)
        self.host = Host(folder.resolve(), environment, code_fingerprint(), timeout, memory, folders, Path.cwd())
        self.retry, self.crew, self.report = tuple(retry), crew or LocalCrew(), report
        self.lacking = lacking

    def run(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> Summary:
        """Do what is missing: measurements of those trials that went well. What lacks its data is skipped. Raises
        DataMissing where all of it does, InvalidRecord while another run holds the folder, and NotWritten where its
        disk is full; what was recorded until then is kept.
        """
        lock = FileLock(self.store.folder / RUN_LOCK, timeout=0)
        try:
            with lock:
                self._remove_leftovers()
                return self._run(trials, measurements)
        except Timeout:
            raise InvalidRecord(
                f"{self.store.folder} is in use by another run: wait for it, or choose another --out"
            ) from None

    def _remove_leftovers(self) -> None:
        """Of a run that was killed."""
        remove_drafts(self.host.models)
        for exports in self.host.models.glob(f"{EXPORTS}*"):
            shutil.rmtree(exports, ignore_errors=True)

    def _run(self, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> Summary:
        known, skipped = self.store.ends(), list[Skipped]()
        to_try, to_time = self._missing(known, trials, measurements)
        if lacked := self.lacking(to_try):
            trials, measurements = as_recorded(trials, measurements, lacked, self.store.records())
            to_try, to_time, skipped = set_aside(*self._missing(known, trials, measurements), known, lacked)
            if not (to_try or to_time) and {each.pair for each in skipped} == {*map(pair_of, trials)}:
                raise DataMissing("\n".join(dict.fromkeys(lacked.values())))
        titles = {trial.key: str(trial) for trial in to_try} | {m.key: f"{t} on {m.setting}" for t, m in to_time}
        titles |= {each.item.key: each.title for each in skipped if not each.recorded}
        total = len(titles)
        by_key = {trial.key: trial for trial in trials}
        planned = {t.key: str(t) for t in trials} | {m.key: f"{by_key[m.trial]} on {m.setting}" for m in measurements}
        kept = {key: known[key] for key in planned if key in known and key not in titles}
        summary = Summary(kept=len(kept))
        for key, end in kept.items():
            if not end.status.well:
                summary.failed_before.append(f"{planned[key]}: {end.status} ({end.reason})")
        for each in skipped:
            if each.recorded:
                summary.skipped.append(f"{each.title}: {each.reason}")
            else:
                record = self.host.skip(each.item, each.reason)
                self.store.append(record)
                _count(summary, record, each.title)

        def told(title: str, stage: str, share: float) -> None:
            self.report(Event(summary.ran, total, title, stage, share))

        with closing(self.crew.work(self.host, to_try, to_time, told)) as records:
            for record in records:
                self.store.append(record)
                if record.status.well:
                    remove_stages(self.host.models, record.key)
                _count(summary, record, titles[record.key])
                self.report(Event(summary.ran, total, titles[record.key]))
        self.report(Event(total, total, "done"))
        return summary

    def _missing(
        self, known: Mapping[str, End], trials: Sequence[Trial], measurements: Sequence[Measurement]
    ) -> tuple[list[Trial], list[Timed]]:
        by_key = {t.key: t for t in trials}
        to_measure = [m for m in measurements if self._is_open(known.get(m.key), by_key[m.trial], m.runtime)]
        needed = {m.trial for m in to_measure}
        damaged = {m.trial for m in to_measure if (end := known.get(m.key)) and _names(end, InvalidPlan)}
        to_try = [
            t
            for t in trials
            if self._is_open(known.get(t.key), t, None if t.budget is None else t.budget.runtime)
            or (t.key in needed and known[t.key].status is Status.OK and (t.key in damaged or not self._has_model(t)))
        ]
        tried = {t.key for t in to_try}
        # of a trial that went wrong before, its own record says why there is nothing to time
        to_time = [m for m in to_measure if m.trial in tried or known[m.trial].status is Status.OK]
        return to_try, [(by_key[m.trial], m) for m in to_time]

    def _is_open(self, end: End | None, trial: Trial, runtime: str | None) -> bool:
        """Whether it was never done, is to be tried again, or was skipped for want of what may be there now: its
        runtime's package, or data, which ``lacking`` looks for. A task without images never has any.
        """
        if end is None or end.status in self.retry:
            return True
        if end.status is not Status.SKIPPED:
            return False
        if _names(end, RuntimeMissing):
            return runtime is not None and available_runtimes()[runtime] is None
        return _names(end, DataMissing) and get_task(trial.task).scored

    def _has_model(self, trial: Trial) -> bool:
        return (self.host.models / trial.key / PLAN).exists()


def _names(end: End, error: type[LowRankBenchError]) -> bool:
    """Whether it ended by such an error."""
    return end.reason.partition(":")[0] == error.__name__


def select(
    trials: Sequence[Trial], measurements: Sequence[Measurement], patterns: Sequence[str]
) -> tuple[list[Trial], list[Measurement]]:
    """Those trials whose line or method matches one of the shell patterns, the dense controls that their losses are
    counted from, and the measurements of both. Raises InvalidInput for a pattern that none matches.
    """
    matching: list[Trial] = []
    for pattern in patterns:
        found = [t for t in trials if fnmatch.fnmatch(str(t), pattern) or fnmatch.fnmatch(t.method, pattern)]
        if not found:
            lines = "; ".join(str(trial) for trial in trials)
            raise InvalidInput(
                f"--only {pattern!r} matches no trial; a pattern such as '*tucker*' is matched against: {lines}"
            )
        matching += found
    wanted, controls = {t.key for t in matching}, {t.control for t in matching}
    chosen = [t for t in trials if t.key in wanted or (t.method == CONTROL and t.control in controls)]
    keys = {trial.key for trial in chosen}
    return chosen, [m for m in measurements if m.trial in keys]


def _count(summary: Summary, record: TrialRecord | MeasurementRecord, title: str) -> None:
    summary.ran += 1
    if record.status is Status.SKIPPED:
        summary.skipped.append(f"{title}: {record.reason}")
    elif record.status is not Status.OK:
        summary.failed.append(f"{title}: {record.status} ({record.reason})")
