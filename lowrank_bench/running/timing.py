"""Timing trials' models against their dense one: a fresh process, several of them pooled, and layer by layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from lowrank_bench.compression.model import load
from lowrank_bench.measurement.cores import pin_cores
from lowrank_bench.measurement.environment import load_average
from lowrank_bench.measurement.exports import Exports
from lowrank_bench.measurement.memory import forget_peak, peak_memory_mb
from lowrank_bench.measurement.profile import Profile, profile
from lowrank_bench.measurement.quality import pack_hits
from lowrank_bench.measurement.runtimes import arithmetic_of, inference_state, prepare
from lowrank_bench.measurement.speedup import Speedup, Yardstick
from lowrank_bench.measurement.statistics import RatioInterval, pool_processes, processes_disagree, verdict
from lowrank_bench.record import ProcessTiming, RuntimeQuality, Timing
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.unchanged import check_unchanged
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import Measurement, Trial

CALIBRATION_IMAGES = 256
# Images of each call while top-1 is measured; what is predicted does not depend on it.
JUDGED = 64


class TimingProcess:
    """Times trials' models in this process, one after another, against the dense model that they have in common and in
    one setting: those of the given trial and measurement, pinned to as many cores as it has threads. ``exports``: what
    its fresh processes share; ``count``: how many it will time.
    """

    def __init__(self, trial: Trial, measurement: Measurement, models: Path, exports: Path, count: int = 1) -> None:
        self.trial, self.measurement, self.models = trial, measurement, models
        self.exports = exports / _folder_of(trial)
        self.count = count
        self.task = get_task(trial.task, trial.model)
        self._load = load_average()  # before this process adds to it
        pin_cores(measurement.threads)

    def time(self, trial: Trial, watch: Stopwatch) -> ProcessTiming:
        """Time a trial's model, once. Raises what measure_speedup raises."""
        compressed = self._compressed(trial, watch)
        with watch.stage("time"):
            # forgotten with all models there: the first row alone would count the conversion of what they share
            return _process_timing(self._yardstick.speedup(compressed, forget_peak), self._load, self.count)

    def judge(self, trial: Trial, watch: Stopwatch) -> RuntimeQuality:
        """Top-1 of a trial's model as a runtime of fewer bits computes it, on the test images of its task. Raises what
        prepare does.
        """
        compressed, threads = self._compressed(trial, watch), self.measurement.threads
        with watch.stage("evaluate"):
            example = next(self.task.batches("test", JUDGED))[0]
            files = Exports(self.exports)
            prepared = prepare(self.measurement.runtime, compressed, example, threads, self._calibration, files)
            with inference_state(threads):
                found = [prepared.predict(images) == labels for images, labels in self.task.batches("test", JUDGED)]
        hits = torch.cat(found)
        return RuntimeQuality(
            images=len(hits),
            top1=100 * float(hits.double().mean()),
            hits=pack_hits(hits.numpy()),
            calibration_images=0 if self._calibration is None else len(self._calibration),
        )

    @cached_property
    def _dense(self) -> nn.Module:
        dense = self.task.load(self.trial.model)
        check_unchanged(self.trial, self.task, timing=True)
        return dense

    @cached_property
    def _yardstick(self) -> Yardstick:
        setting = self.measurement
        return Yardstick(
            self._dense,
            self.task.input_size,
            setting.batch,
            setting.runtime,
            setting.threads,
            setting.precision,
            setting.max_seconds,
            calibration=self._calibration,
            exports=self.exports,
        )

    @cached_property
    def _calibration(self) -> Tensor | None:
        """Training images for a runtime that quantizes; None for the others, and where the task has no images."""
        if arithmetic_of(self.measurement.runtime) != "int8" or not self.task.scored:
            return None
        batches = self.task.calibration_batches(seed=self.trial.seed, limit=CALIBRATION_IMAGES)
        return torch.cat([images for images, _ in batches])

    def _compressed(self, trial: Trial, watch: Stopwatch) -> nn.Module:
        with watch.stage("load"):
            return load(self.models / trial.key, self._dense, values=self.task.scored).model


def _folder_of(trial: Trial) -> str:
    """A name for its dense model, which two of other code but one structure would share."""
    return hashlib.sha256(json.dumps([trial.task, trial.model]).encode()).hexdigest()[:16]


def run_profile(
    trial: Trial, models: Path, watch: Stopwatch, runtime: str, threads: int, batch: int, seconds: float
) -> Profile:
    """Time layer by layer, in this process, pinned to as many cores as it has threads. Raises what profile raises."""
    pin_cores(threads)
    with watch.stage("load"):
        task = get_task(trial.task, trial.model)
        dense = task.load(trial.model)
        compressed = load(models / trial.key, dense, values=task.scored).model
    with watch.stage("time"):
        return profile(
            dense, compressed, task.input_size, batch=batch, runtime=runtime, threads=threads, seconds=seconds
        )


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


def _process_timing(speedup: Speedup, load: float | None, models: int) -> ProcessTiming:
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
        models=models,
    )
