"""What came out: one record per trial and per measurement. A failure is a record too, never a gap."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lowrank_bench.trial import Measurement, Positive, Trial, Whole


class Status(StrEnum):
    """How a trial or measurement ended."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    DIVERGED = "diverged"
    NOT_EXPORTABLE = "not_exportable"

    @property
    def well(self) -> bool:
        """Whether nothing went wrong: it was done, or refused by name."""
        return self in (Status.OK, Status.SKIPPED)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class LayerSize(_Part):
    """One compressed layer: its ranks, its relative weight error (Frobenius), its share of the cost; ``notes``: what
    its method reports, such as degeneracy.
    """

    ranks: tuple[int, ...]
    error: float | None
    params: int
    macs: int
    dense_params: int
    dense_macs: int
    notes: dict[str, float] = {}


class Size(_Part):
    """Parameters, multiply-accumulates of one image and bytes, dense and compressed; layers that stayed dense, with the
    reason.
    """

    params: Positive
    macs: Positive
    bytes: Positive
    dense_params: Positive
    dense_macs: Positive
    dense_bytes: Positive
    layers: dict[str, LayerSize]
    skipped: dict[str, str]


class Epoch(_Part):
    """One epoch of training: mean loss, validation top-1 in percent, seconds."""

    loss: float
    validation_top1: float | None
    seconds: float


class Quality(_Part):
    """Top-1 in percent on the test images, before and after tuning; which images were right, as packed bits (the raw
    data behind every interval); ``epochs``: of tuning.
    """

    images: Positive
    group_sizes: list[int] | None = Field(
        description="consecutive images that are resampled together; None: each on its own"
    )
    top1_original: float = Field(description="the dense model as it came, before any extra training")
    top1_before: float
    top1_after: float
    agreement: float = Field(
        description="percent of the test images on which the tuned model and the dense model as it came predict the "
        "same class"
    )
    hits_before: str
    hits_after: str
    epochs: list[Epoch]
    method_epochs: list[Epoch] = Field(
        default=[], description="of the training within the method, before the common tuning"
    )


class ProcessTiming(_Part):
    """The pairs of a model in one fresh process: nanoseconds of each sample, dense and compressed, and what disturbed
    it.
    """

    ratio: float
    low: float
    high: float
    noise_floor: float = Field(
        description="how far from 1 the A/A interval reaches (dense against its copy), once in each process"
    )
    dense_ms: float
    compressed_ms: float
    dense_p90_ms: float
    p90_ms: float
    dense_ns: list[int] = Field(
        description="wall times, ``repeats[0]`` in a row for each pair, each over ``loops`` calls"
    )
    compressed_ns: list[int]
    dense_cpu_ns: list[int] = Field(description="CPU time of the process, per pair")
    compressed_cpu_ns: list[int]
    dense_switches: list[int] = Field(description="involuntary context switches, per pair")
    compressed_switches: list[int]
    order: str = Field(description="one letter per side timed, as they ran: A dense, B compressed")
    repeats: tuple[int, int]
    loops: int
    stop_reason: str
    runtime_error: float = Field(description="larger relative difference of the two models' outputs from eager's")
    memory_mb: float = Field(description="most that the process, which holds both models, had in memory meanwhile")
    convert_seconds: tuple[float, float]
    model_bytes: tuple[Whole, Whole]
    load: float | None = Field(
        default=None, description="running processes when it began, mean of the last minute; None: not known"
    )
    models: Positive = Field(
        default=1, description="compressed models that the process timed, one after another, against one dense model"
    )


class Timing(_Part):
    """Paired timing over all processes. ``ratio``: dense over compressed; the verdict is against the interval widened
    by the noise floor.
    """

    ratio: float
    low: float
    high: float
    verdict: Literal["faster", "slower", "same"]
    noise_floor: float
    unstable: bool
    dense_ms: float
    compressed_ms: float
    dense_p90_ms: float
    p90_ms: float
    memory_mb: float
    processes: list[ProcessTiming] = Field(min_length=1)


class RuntimeQuality(_Part):
    """Top-1 in percent on the test images as a runtime of fewer bits computes them; which images were right, as packed
    bits.
    """

    images: Positive
    top1: float
    hits: str
    calibration_images: int = Field(description="training images from which the ranges of activations were learnt")


class _Outcome(_Part):
    key: str
    status: Status
    reason: str = ""
    finished: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: dict[str, float] = Field(default={}, description="seconds per stage")
    environment: dict[str, Any] = {}
    code: str = Field(default="", description="fingerprint of the package's source")
    stderr: str = Field(default="", description="the end of what the child wrote, where it did not end well")


class TrialRecord(_Outcome):
    """A trial and its outcome."""

    kind: Literal["trial"] = "trial"
    trial: Trial
    size: Size | None = None
    quality: Quality | None = None


class MeasurementRecord(_Outcome):
    """A measurement and its outcome."""

    kind: Literal["measurement"] = "measurement"
    measurement: Measurement
    timing: Timing | None = None
    quality: RuntimeQuality | None = Field(
        default=None, description="where the runtime computes in fewer bits; None: the trial's own holds"
    )


Record = Annotated[TrialRecord | MeasurementRecord, Field(discriminator="kind")]
RECORD: TypeAdapter[TrialRecord | MeasurementRecord] = TypeAdapter(Record)
