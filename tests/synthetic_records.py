"""Records of a small sweep that never ran, with known answers: what the tests of reporting read."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowrank_bench.measurement.quality import pack_hits
from lowrank_bench.measurement.statistics import Verdict
from lowrank_bench.record import (
    LayerSize,
    MeasurementRecord,
    ProcessTiming,
    Quality,
    Size,
    Status,
    Timing,
    TrialRecord,
)
from lowrank_bench.trial import Budget, Measurement, Trial

IMAGES, GROUP = 2000, 20
DENSE_HITS = 1820
DENSE_MACS, DENSE_PARAMS = 90_000_000, 2_400_000
ENVIRONMENT = {"machine": "bench-1", "cpu": "Testor 9000", "cores": 2, "os": "Linux 6.1", "torch": "2.15.0"}


def trial(method: str, ratio: float | None = None, **fields: Any) -> Trial:
    """A trial of charnet at a MACs budget, or the dense control."""
    budget = None if ratio is None else Budget(macs=ratio)
    usual = {"task": "chars36", "model": "charnet", "recipe": "standard", "budget": budget}
    return Trial(**usual | fields, method=method)


def trial_record(of: Trial, loss: float = 0.0, **fields: Any) -> TrialRecord:
    """The record of a trial that lost ``loss`` points of the dense control's 91 %, on 2000 images in groups of 20."""
    ratio = 1.0 if of.budget is None else of.budget.ratio
    right = DENSE_HITS - round(loss * IMAGES / 100)
    after = np.random.default_rng(of.seed).permutation(IMAGES) < right
    before = after & (np.arange(IMAGES) % 10 > 0)
    size = Size(
        params=round(DENSE_PARAMS / ratio),
        macs=round(DENSE_MACS / ratio),
        bytes=round(4 * DENSE_PARAMS / ratio),
        dense_params=DENSE_PARAMS,
        dense_macs=DENSE_MACS,
        dense_bytes=4 * DENSE_PARAMS,
        layers={"conv2": LayerSize(ranks=(16,), error=0.1, params=1, macs=1, dense_params=2, dense_macs=2)},
        skipped={},
    )
    quality = Quality(
        images=IMAGES,
        group_sizes=[GROUP] * (IMAGES // GROUP),
        top1_original=90.5,
        top1_before=100 * before.mean(),
        top1_after=100 * after.mean(),
        agreement=97.0,
        hits_before=pack_hits(before),
        hits_after=pack_hits(after),
        epochs=[],
    )
    outcome = {"status": Status.OK, "size": size, "quality": quality, "seconds": {"decompose": 1.5, "finetune": 40.0}}
    return TrialRecord(**_common(of.key) | outcome | fields, trial=of)


def failed_trial(of: Trial, status: Status, reason: str) -> TrialRecord:
    """The record of a trial that left no model."""
    return trial_record(of, status=status, reason=reason, size=None, quality=None, seconds={})


def measurement_record(of: Trial, speedup: float = 1.0, width: float = 0.01, **fields: Any) -> MeasurementRecord:
    """The record of a measurement: ``fields`` are the measurement's, or else the record's."""
    own = {name: fields.pop(name) for name in list(fields) if name in Measurement.model_fields}
    setting: dict[str, Any] = {"machine": "bench-1", "runtime": "onnxruntime", "threads": 1, "batch": 64}
    setting |= {"precision": 0.01, "max_seconds": 60.0} | own
    measurement = Measurement(**setting, trial=of.key)
    low, high = speedup * (1 - width), speedup * (1 + width)
    verdict: Verdict = "faster" if low / 1.004 > 1 else "slower" if high * 1.004 < 1 else "same"
    dense_ms = {"onnxruntime": 40.0, "openvino": 44.0, "onnxruntime-int8": 16.0}.get(
        measurement.runtime, 70.0
    ) / measurement.threads
    times = {"dense_ms": dense_ms, "compressed_ms": dense_ms / speedup}
    times |= {"dense_p90_ms": 1.1 * dense_ms, "p90_ms": 1.1 * dense_ms / speedup}
    bounds = {"ratio": speedup, "low": low, "high": high, "noise_floor": 0.004}
    numbers = bounds | times | {"memory_mb": 200.0}
    timing = Timing(**numbers, verdict=verdict, unstable=False, processes=[_process(numbers)])
    outcome = {"status": Status.OK, "timing": timing}
    return MeasurementRecord(**_common(measurement.key) | outcome | fields, measurement=measurement)


def processes(record: MeasurementRecord, *told: tuple[int, str, float | None]) -> MeasurementRecord:
    """The record with a process for each of these: pairs, stop reason, and load when it began."""
    assert record.timing is not None
    (usual,) = record.timing.processes
    timings = [
        usual.model_copy(update={"dense_cpu_ns": [1] * pairs, "stop_reason": reason, "load": load})
        for pairs, reason, load in told
    ]
    update = {"timing": record.timing.model_copy(update={"processes": timings})}
    count = record.measurement.model_copy(update={"processes": len(told)})
    return record.model_copy(update=update | {"measurement": count, "key": count.key})


def sweep(seeds: tuple[int, ...] = (0,), runtimes: tuple[str, ...] = ("eager-nhwc", "onnxruntime")) -> list[Any]:
    """Three methods at two budgets and the control, all of it timed, and a method that refuses."""
    known = {
        ("tucker", 4): (0.4, 2.4),
        ("tucker", 8): (1.6, 3.6),
        ("jaderberg", 4): (0.2, 3.1),
        ("jaderberg", 8): (0.9, 5.2),
        ("channel_svd", 4): (1.4, 2.1),
        ("channel_svd", 8): (6.5, 2.9),
    }
    records: list[Any] = []
    for seed in seeds:
        control = trial("identity", seed=seed)
        records.append(trial_record(control))
        records += [measurement_record(control, 1.001, 0.003, runtime=runtime) for runtime in runtimes]
        for (method, ratio), (loss, speedup) in known.items():
            of = trial(method, ratio, seed=seed)
            records.append(trial_record(of, loss + 0.1 * seed))
            for runtime in runtimes:
                factor = {"onnxruntime": 1.0, "openvino": 0.9}.get(runtime, 0.75) * (1 + 0.01 * seed)
                records.append(measurement_record(of, speedup * factor, runtime=runtime))
        refused = trial("cp_nls", 4, seed=seed)
        records.append(failed_trial(refused, Status.SKIPPED, "InvalidBudget: largest reachable ratio | macs: 3.1"))
    return records


def write(folder: Any, records: list[Any]) -> None:
    """Put records into a results folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(record.model_dump_json() + "\n" for record in records)
    (folder / "records.jsonl").write_text(text, encoding="utf-8")


def _common(key: str) -> dict[str, Any]:
    return {"key": key, "finished": "2026-05-04T10:00:00+00:00", "environment": ENVIRONMENT, "code": "c0de"}


def _process(numbers: dict[str, float]) -> ProcessTiming:
    return ProcessTiming(
        **numbers,
        dense_ns=[],
        compressed_ns=[],
        dense_cpu_ns=[],
        compressed_cpu_ns=[],
        dense_switches=[],
        compressed_switches=[],
        order="",
        repeats=(1, 1),
        loops=1,
        stop_reason="precision",
        runtime_error=1e-6,
        convert_seconds=(0.1, 0.1),
        model_bytes=(4 * DENSE_PARAMS, DENSE_PARAMS),
    )
