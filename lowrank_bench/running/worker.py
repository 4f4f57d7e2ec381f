"""One trial, or one piece of measuring, in a child of its own, which ``running.start`` begins.

Progress goes to standard output as JSON lines; the last line is the outcome.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lowrank_bench.allocator import keep_freed_memory
from lowrank_bench.compression.registry import add_methods_folder
from lowrank_bench.errors import (
    DataMissing,
    Diverged,
    ExportFailed,
    InvalidBudget,
    InvalidRanks,
    NotWritten,
    RuntimeMissing,
    UnsupportedLayer,
    is_out_of_memory,
)
from lowrank_bench.measurement.diagnosis import Probe, probe
from lowrank_bench.measurement.profile import Profile
from lowrank_bench.record import ProcessTiming, Quality, RuntimeQuality, Size, Status
from lowrank_bench.running.memory import limited_memory
from lowrank_bench.running.stages import run_trial
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.timing import TimingProcess, run_profile
from lowrank_bench.trial import Measurement, Trial


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class TrialJob(_Message):
    """Make a trial's model under ``models``, with at most ``memory`` GB."""

    kind: Literal["trial"] = "trial"
    trial: Trial
    models: Path
    methods_folders: list[Path] = []
    memory: float | None = None


class Row(_Message):
    """One measurement of a trial's model; ``judge``: of its top-1 in the measurement's runtime as well."""

    trial: Trial
    measurement: Measurement
    judge: bool = False


class TimingJob(_Message):
    """Time models that trials left under ``models``, each once, in this process, with at most ``memory`` GB. They have
    one dense model and one setting in common. ``exports``: folder that the measurements' processes share.
    """

    kind: Literal["timing"] = "timing"
    rows: list[Row]
    models: Path
    exports: Path
    memory: float | None = None


class ProfileJob(_Message):
    """Time the model that a trial left under ``models`` layer by layer, at most ``seconds`` each."""

    kind: Literal["profile"] = "profile"
    trial: Trial
    models: Path
    runtime: str
    threads: int
    batch: int
    seconds: float


class ProbeJob(_Message):
    """See what the machine can do, and how noisy it is in ``seconds``."""

    kind: Literal["probe"] = "probe"
    seconds: float


class Progress(_Message):
    """A stage that began or went on, of the job's only piece of work or of one of its rows; ``share`` from 0 to 1."""

    kind: Literal["progress"] = "progress"
    stage: str
    share: float
    row: int = 0


class Outcome(_Message):
    """How the job ended, with the result of its kind where it went well; ``rows``: how each row of a timing ended."""

    kind: Literal["outcome"] = "outcome"
    status: Status
    reason: str = ""
    seconds: dict[str, float] = {}
    size: Size | None = None
    quality: Quality | None = None
    timing: ProcessTiming | None = None
    runtime_quality: RuntimeQuality | None = None
    profile: Profile | None = None
    probe: Probe | None = None
    rows: list[Outcome] = []


class Halt(_Message):
    """The disk is full or cannot be written: no fault of the job, so nothing is recorded and the run stops."""

    kind: Literal["halt"] = "halt"
    reason: str


STATUS_OF: tuple[tuple[tuple[type[Exception], ...], Status], ...] = (
    ((Diverged,), Status.DIVERGED),
    ((ExportFailed,), Status.NOT_EXPORTABLE),
    ((RuntimeMissing, DataMissing, InvalidBudget, InvalidRanks, UnsupportedLayer), Status.SKIPPED),
)
"""What an exception means for the record; a method that refuses a model or a budget by name is skipped, not failed."""

Job = TrialJob | TimingJob | ProfileJob | ProbeJob
JOB: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="kind")])
Line = Annotated[Progress | Outcome | Halt, Field(discriminator="kind")]
LINE: TypeAdapter[Progress | Outcome | Halt] = TypeAdapter(Line)


def work(line: str) -> None:
    """Do a job, and write its outcome."""
    job = JOB.validate_json(line)
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a method prints goes to the log, not into the channel

    def tell(line: Progress | Outcome | Halt) -> None:
        print(line.model_dump_json(), file=channel)

    def watch(row: int = 0) -> Stopwatch:
        return Stopwatch(lambda stage, share: tell(Progress(stage=stage, share=share, row=row)))

    try:
        tell(_rows_outcome(job, watch) if isinstance(job, TimingJob) else _outcome(job, watch()))
    except NotWritten as error:
        tell(Halt(reason=str(error)))


def _rows_outcome(job: TimingJob, watch: Callable[[int], Stopwatch]) -> Outcome:
    def rows() -> dict[str, Any]:
        first = job.rows[0]
        process = TimingProcess(first.trial, first.measurement, job.models, job.exports, len(job.rows))
        return {"rows": [_row_outcome(process, row, watch(number)) for number, row in enumerate(job.rows)]}

    return _ended(rows, {}, job.memory)


def _row_outcome(process: TimingProcess, row: Row, watch: Stopwatch) -> Outcome:
    def results() -> dict[str, Any]:
        timing = process.time(row.trial, watch)
        judged = process.judge(row.trial, watch) if row.judge else None
        return {"timing": timing, "runtime_quality": judged}

    return _ended(results, watch.seconds)


def _outcome(job: TrialJob | ProfileJob | ProbeJob, watch: Stopwatch) -> Outcome:
    return _ended(lambda: _results(job, watch), watch.seconds, job.memory if isinstance(job, TrialJob) else None)


def _results(job: TrialJob | ProfileJob | ProbeJob, watch: Stopwatch) -> dict[str, Any]:
    if isinstance(job, ProbeJob):
        return {"probe": probe(job.seconds)}
    if isinstance(job, ProfileJob):
        return {"profile": run_profile(job.trial, job.models, watch, job.runtime, job.threads, job.batch, job.seconds)}
    for folder in job.methods_folders:
        add_methods_folder(folder)
    if job.trial.budget is None or job.trial.budget.latency is None:  # which times models here, as users run them
        keep_freed_memory()
    size, quality = run_trial(job.trial, job.models, watch)
    return {"size": size, "quality": quality}


def _ended(results: Callable[[], dict[str, Any]], seconds: dict[str, float], memory: float | None = None) -> Outcome:
    """The outcome that holds these results, or says why there are none. Raises NotWritten, which is no fault of theirs.
    ``seconds``: as they are counted meanwhile.
    """
    try:
        with limited_memory(memory):
            return Outcome(status=Status.OK, seconds=seconds, **results())
    except NotWritten:
        raise
    except Exception as error:
        traceback.print_exc()
        return Outcome(status=_status_of(error), reason=f"{type(error).__name__}: {error}", seconds=seconds)


def _status_of(error: Exception) -> Status:
    for kinds, status in STATUS_OF:
        if isinstance(error, kinds):
            return status
    return Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.FAILED
