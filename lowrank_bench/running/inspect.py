"""One look at this machine, or at one recorded trial: in a child, alone on the machine, as sweeps are timed."""

from __future__ import annotations

import fnmatch
import math
from pathlib import Path

from lowrank_bench.compression.model import PLAN
from lowrank_bench.errors import InvalidInput, MeasurementFailed, RuntimeMissing, UnknownName
from lowrank_bench.measurement.cores import usable_cores
from lowrank_bench.measurement.diagnosis import Diagnosis, diagnose
from lowrank_bench.measurement.environment import checks, fingerprint
from lowrank_bench.measurement.profile import Profile
from lowrank_bench.measurement.runtimes import available_runtimes
from lowrank_bench.measurement.speedup import check_setting
from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import Status, TrialRecord
from lowrank_bench.running.child import run_child
from lowrank_bench.running.locks import Waiting, timing_lock
from lowrank_bench.running.worker import Job, Outcome, ProbeJob, ProfileJob
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.open_task import is_code, split_model
from lowrank_bench.trial import Trial

TIMEOUT = 3600.0


def inspect_machine(seconds: float, waiting: Waiting | None = None) -> Diagnosis:
    """Look at what timings here depend on, then measure noise and peaks; ``waiting`` as for timing_lock. Raises
    InvalidInput and MeasurementFailed.
    """
    _check_seconds(seconds)
    with timing_lock(waiting=waiting):
        environment, standing = fingerprint(), checks()  # before the probe itself loads the machine
        outcome = _done(ProbeJob(seconds=seconds), usable_cores())
    assert outcome.probe is not None  # or it would not have ended well
    return diagnose(environment, standing, outcome.probe)


def inspect_trial(
    folder: Path,
    trial: Trial,
    runtime: str,
    threads: int,
    batch: int,
    seconds: float,
    own_model: str | None = None,
    waiting: Waiting | None = None,
) -> Profile:
    """Profile the model that a trial left in a results folder. A record may come from anywhere and name code to import:
    that is run only where ``own_model`` repeats it; ``waiting`` as for timing_lock. Raises InvalidInput, UnknownName,
    RuntimeMissing and MeasurementFailed.
    """
    _check_seconds(seconds)
    _check_code(trial, own_model)
    check_setting(get_task(trial.task, trial.model).input_size, batch, threads)
    runtimes = available_runtimes()
    if runtime not in runtimes:
        raise UnknownName("runtime", runtime, runtimes)
    if problem := runtimes[runtime]:
        raise RuntimeMissing(f"runtime {runtime!r} is not ready: {problem}")
    models = folder / "models"
    if not (models / trial.key / PLAN).exists():
        raise InvalidInput(
            f"{models / trial.key} holds no model: name with --out the folder that has it, or a new one, for which its "
            "sweep is run again"
        )
    job = ProfileJob(trial=trial, models=models, runtime=runtime, threads=threads, batch=batch, seconds=seconds)
    with timing_lock(waiting=waiting):
        outcome = _done(job, threads)
    assert outcome.profile is not None  # or it would not have ended well
    return outcome.profile


def find_trial(folder: Path, wanted: str) -> Trial:
    """The recorded trial whose key begins with ``wanted``, or whose line or key matches it as a shell pattern.

    Raises InvalidInput where it is none or several or ended without a model, InvalidRecord as ``read_records`` does.
    """
    made = [record for record in latest(read_records(folder)).values() if isinstance(record, TrialRecord)]
    found = [record for record in made if record.key.startswith(wanted) or _matches(record.trial, wanted)]
    if len(found) != 1:
        listed = "\n".join(f"  {record.key}  {record.trial}" for record in found or made)
        raise InvalidInput(
            f"{wanted!r} matches {len(found) or 'no'} trials in {folder}: name one by its key, or by the first digits "
            f"of it\n{listed}"
        )
    record = found[0]
    if record.status is not Status.OK:
        raise InvalidInput(f"{record.key} ({record.trial}) left no model: {record.status}, {record.reason}")
    return record.trial


def _check_code(trial: Trial, own_model: str | None) -> None:
    name, _ = split_model(trial.model)
    if is_code(name) and own_model != name:
        raise InvalidInput(
            f"the model of this record, {name!r}, is code that would be imported and run: if it is your own, repeat "
            f"it, --model {name}"
        )


def _matches(trial: Trial, pattern: str) -> bool:
    return any(fnmatch.fnmatch(text, pattern) for text in (trial.key, str(trial)))


def _done(job: Job, threads: int) -> Outcome:
    ended = run_child(job, threads, TIMEOUT, lambda *_: None)
    if ended.outcome.status is not Status.OK:
        raise MeasurementFailed(f"{ended.outcome.status}: {ended.outcome.reason}")
    return ended.outcome


def _check_seconds(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidInput(f"--seconds {seconds}: a positive number is wanted")
