"""Timing a trial's model against its dense one: one fresh process, several of them pooled, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from lowrank_bench.compression.model import load
from lowrank_bench.measurement.cores import pin_cores
from lowrank_bench.measurement.environment import load_average
from lowrank_bench.measurement.exports import Exports
from lowrank_bench.measurement.memory import peak_memory_mb
from lowrank_bench.measurement.profile import Profile, profile
from lowrank_bench.measurement.quality import pack_hits
from lowrank_bench.measurement.runtimes import arithmetic_of, inference_state, prepare
from lowrank_bench.measurement.speedup import Speedup, measure_speedup
from lowrank_bench.measurement.statistics import RatioInterval, pool_processes, processes_disagree, verdict
from lowrank_bench.record import ProcessTiming, RuntimeQuality, Timing
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

CALIBRATION_IMAGES = 256
# Images of each call while top-1 is measured; what is predicted does not depend on it.
JUDGED = 64


def run_timing(trial: Trial, measurement: Measurement, models: Path, exports: Path, watch: Stopwatch) -> ProcessTiming:
    """Time once, in this process, pinned to as many cores as it has threads. ``exports``: what its fresh processes
    share. Raises what measure_speedup raises.
    """
    load = load_average()  # before this process adds to it
    pin_cores(measurement.threads)
    dense, compressed = _models(trial, models, watch)
    with watch.stage("time"):
        speedup = measure_speedup(
            dense,
            compressed,
            get_task(trial.task, trial.model).input_size,
            batch=measurement.batch,
            runtime=measurement.runtime,
            threads=measurement.threads,
            precision=measurement.precision,
            max_seconds=measurement.max_seconds,
            calibration=_calibration(trial, measurement.runtime),
            exports=exports,
        )
    return _process_timing(speedup, load)


def judge_runtime(
    trial: Trial, measurement: Measurement, models: Path, exports: Path, watch: Stopwatch
) -> RuntimeQuality | None:
    """Top-1 of a trial's model as a runtime of fewer bits computes it, on the test images; None where the task has no
    images. Raises what prepare does.
    """
    task = get_task(trial.task, trial.model)
    if not task.scored:
        return None
    _, compressed = _models(trial, models, watch)
    with watch.stage("evaluate"):
        calibration = _calibration(trial, measurement.runtime)
        example = next(task.batches("test", JUDGED))[0]
        prepared = prepare(measurement.runtime, compressed, example, measurement.threads, calibration, Exports(exports))
        with inference_state(measurement.threads):
            hits = torch.cat([prepared.predict(images) == labels for images, labels in task.batches("test", JUDGED)])
    return RuntimeQuality(
        images=len(hits),
        top1=100 * float(hits.double().mean()),
        hits=pack_hits(hits.numpy()),
        calibration_images=0 if calibration is None else len(calibration),
    )


def run_profile(
    trial: Trial, models: Path, watch: Stopwatch, runtime: str, threads: int, batch: int, seconds: float
) -> Profile:
    """Time layer by layer, in this process, pinned to as many cores as it has threads. Raises what profile raises."""
    pin_cores(threads)
    dense, compressed = _models(trial, models, watch)
    size = get_task(trial.task, trial.model).input_size
    with watch.stage("time"):
        return profile(dense, compressed, size, batch=batch, runtime=runtime, threads=threads, seconds=seconds)


def pool(processes: Sequence[ProcessTiming]) -> Timing:
    """One result from fresh processes: of one, its own interval; of several, the t-interval on their medians' logs.

    The noise floor is that of the typical process: what disturbs a single one shows between the processes, in the
    t-interval. ``unstable``: they differ by more than their own intervals explain.
    """
    intervals = [RatioInterval(p.ratio, p.low, p.high) for p in processes]
    interval = intervals[0] if len(intervals) == 1 else pool_processes([i.ratio for i in intervals])
    floor = median(p.noise_floor for p in processes)
    return Timing(
        ratio=interval.ratio,
        low=interval.low,
        high=interval.high,
        verdict=verdict(interval, floor),
        noise_floor=floor,
        unstable=len(intervals) > 1 and processes_disagree(intervals),
        dense_ms=median(p.dense_ms for p in processes),
        compressed_ms=median(p.compressed_ms for p in processes),
        dense_p90_ms=median(p.dense_p90_ms for p in processes),
        p90_ms=median(p.p90_ms for p in processes),
        memory_mb=max(p.memory_mb for p in processes),
        processes=list(processes),
    )


def _models(trial: Trial, models: Path, watch: Stopwatch) -> tuple[nn.Module, nn.Module]:
    """The dense model and the trial's."""
    with watch.stage("load"):
        task = get_task(trial.task, trial.model)
        dense = task.load(trial.model)
        return dense, load(models / trial.key, dense, values=task.scored).model


def _calibration(trial: Trial, runtime: str) -> Tensor | None:
    """Training images for a runtime that quantizes; None for the others, and where the task has no images."""
    task = get_task(trial.task, trial.model)
    if arithmetic_of(runtime) != "int8" or not task.scored:
        return None
    batches = task.batches("train", seed=trial.seed, limit=CALIBRATION_IMAGES)
    return torch.cat([images for images, _ in batches])


def _process_timing(speedup: Speedup, load: float | None) -> ProcessTiming:
    raw = speedup.raw
    return ProcessTiming(
        ratio=speedup.ratio,
        low=speedup.low,
        high=speedup.high,
        noise_floor=speedup.noise_floor,
        dense_ms=speedup.dense_ms,
        compressed_ms=speedup.compressed_ms,
        dense_p90_ms=speedup.dense_p90_ms,
        p90_ms=speedup.p90_ms,
        dense_ns=list(raw.dense_ns),
        compressed_ns=list(raw.compressed_ns),
        dense_cpu_ns=list(raw.dense_cpu_ns),
        compressed_cpu_ns=list(raw.compressed_cpu_ns),
        dense_switches=list(raw.dense_switches),
        compressed_switches=list(raw.compressed_switches),
        order=raw.order,
        repeats=raw.repeats,
        loops=raw.loops,
        stop_reason=raw.stop_reason,
        runtime_error=speedup.runtime_error,
        memory_mb=peak_memory_mb(),
        convert_seconds=speedup.convert_seconds,
        model_bytes=speedup.model_bytes,
        load=load,
    )
