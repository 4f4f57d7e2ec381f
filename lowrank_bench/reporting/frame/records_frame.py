"""Records as one DataFrame: a row per measurement, joined with its trial and compared with the dense control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.quality import coarsest, paired_drop, unpack_hits
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import MeasurementRecord, Quality, RuntimeQuality, Size, TrialRecord
from lowrank_bench.reporting.frame.clocked import timing_columns
from lowrank_bench.reporting.frame.columns import COLUMNS, EMPTY, SETTING
from lowrank_bench.reporting.frame.dense_times import DENSE, with_dense_times
from lowrank_bench.reporting.frame.last_version import last_measurements, last_trials, machine_of
from lowrank_bench.reporting.frame.pooling import best_of
from lowrank_bench.reporting.frame.practical import BOUNDS, with_practical
from lowrank_bench.trial import CONTROL, MACHINE

_SAME_MACHINE = ["task", "model", "recipe", "machine", "threads", "batch"]

_SECONDS = ("decompose_s", "finetune_s")
_PASSING = ("machine", "load", "torch_threads", "variables")  # machine and threads have columns of their own


def load_records(folder: Path | str) -> pd.DataFrame:
    """Read every record below a folder, or in one file: a row per measurement, joined with its trial, and a row for
    each trial that has none in float32 because it failed, was skipped or was not timed.

    Top-1 is in percent; ``top1_dense`` is that of the dense control after the same tuning, and ``top1_drop`` the loss
    against it in points with its paired 95 % interval (NaN without a control of the same versions; ``note`` says why).
    Where a runtime computes in fewer bits (``arithmetic``), ``top1_after`` is what it came to there; the control is in
    float32 always. Ratios are dense over compressed; ``realised = speedup / macs_ratio``; ``p90_ms`` and
    ``images_per_s`` are the compressed model's;
    ``decompose_s`` and ``finetune_s`` are seconds (NaN beside times of another machine than that where the model was
    made), ``bytes`` the model's. ``kind`` is "measurement" or "trial", ``key`` the key of that record, ``trial`` the
    trial's. ``practical``: see ``with_practical``; ``reference``, ``headline`` and ``runtime_dense_ms``:
    ``with_dense_times``. Of what was timed more than once in a setting ``practical`` is told of one timing, see
    ``best_of``. ``speedup_most`` is the largest of the processes. Of the compressed model in its runtime:
    ``runtime_error``, the relative difference from eager's output (the larger of both models'), ``convert_s``, seconds
    of conversion, and ``runtime_bytes``. ``pairs_least``, ``pairs`` (median) and ``pairs_most`` of a process; the share
    of processes ``stopped_by_time``; ``load_least`` and ``load_most`` at the start of one, or of the run. Text that
    does not apply is empty, numbers NA. Of what was recorded twice the last record that ended well counts, else the
    last, and of what was recorded under several declared versions the last version; of networks of one name that
    several machines trained, each machine's last one. Raises InvalidRecord where there is no readable record.
    """
    return to_frame(read_records(folder))


def to_frame(records: Iterable[TrialRecord | MeasurementRecord]) -> pd.DataFrame:
    """The frame of ``load_records``, of records at hand."""
    counting = latest(records).values()
    trials = last_trials([r for r in counting if isinstance(r, TrialRecord)])
    measured = last_measurements([r for r in counting if isinstance(r, MeasurementRecord)])
    outdated = {r.key for r in counting if isinstance(r, TrialRecord)} - trials.keys()
    controls = {r.trial.control: r for r in counting if isinstance(r, TrialRecord) and r.trial.method == CONTROL}

    of_trial = {key: _trial_columns(r, controls.get(r.trial.control)) for key, r in trials.items()}
    rows = []
    timed = set()
    for record in measured.values():
        key = record.measurement.trial
        if key in outdated:
            continue
        columns = _measurement_columns(record)
        if columns["arithmetic"] == "float32":  # in fewer bits a model's accuracy is the runtime's: its own has a row
            timed.add(key)
        rows.append({**of_trial.get(key, _orphan(key)), **columns})
        if (made := trials.get(key)) is None:
            continue
        if made.environment.get("machine") != record.measurement.machine:
            rows[-1] |= dict.fromkeys(_SECONDS)
        if record.quality:
            rows[-1] |= _runtime_quality_columns(record.quality, made, controls.get(made.trial.control))
    rows += [columns for key, columns in of_trial.items() if key not in timed]
    return _typed(rows)


def _trial_columns(record: TrialRecord, control: TrialRecord | None) -> dict[str, object]:
    trial = record.trial
    return {
        "kind": "trial",
        "key": record.key,
        "trial": record.key,
        "task": trial.task,
        "model": trial.model,
        "method": trial.method,
        "options": trial.options_text,
        "budget": "" if trial.budget is None else str(trial.budget),
        "target": trial.target,
        "recipe": trial.recipe,
        "seed": trial.seed,
        "machine": machine_of(record) if MACHINE in trial.versions else "",
        **{name: record.seconds.get(name.removesuffix("_s")) for name in _SECONDS},
        **_outcome_columns(record),
        **_size_columns(record.size),
        **_quality_columns(record.quality, control),
    }


def _outcome_columns(record: TrialRecord | MeasurementRecord) -> dict[str, object]:
    return {
        "status": str(record.status),
        "reason": record.reason,
        "finished": record.finished,
        "code": record.code,
        "environment": readable_environment(record.environment),
    }


def readable_environment(environment: Mapping[str, Any]) -> str:
    """One line, such as ``cpu: Xeon; cores: 2; torch: 2.15.0``, in the record's order, without what changes from one
    record to the next on the same machine, and without what is not there.
    """
    lasting = {name: value for name, value in environment.items() if name not in _PASSING}
    facts = flat_environment(lasting).items()
    return "; ".join(f"{name}: {value}" for name, value in facts if value not in (None, ""))


def flat_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of machine and versions, by name: what is nested, such as packages, stands beside the rest."""
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


def _size_columns(size: Size | None) -> dict[str, object]:
    if size is None:
        return {}
    return {
        "params": size.params,
        "macs": size.macs,
        "bytes": size.bytes,
        "params_ratio": size.dense_params / size.params,
        "macs_ratio": size.dense_macs / size.macs,
        "bytes_ratio": size.dense_bytes / size.bytes,
    }


def _quality_columns(quality: Quality | None, control: TrialRecord | None) -> dict[str, object]:
    if quality is None:
        return {}
    own: dict[str, object] = {
        "images": quality.images,
        "top1_original": quality.top1_original,
        "top1_before": quality.top1_before,
        "top1_after": quality.top1_after,
        "agreement": quality.agreement,
    }
    if control is None:
        return own | {"note": f"no dense control ({CONTROL}) with this task, model, recipe, seed and versions"}
    if control.quality is None:
        return own | {"note": f"the dense control has no accuracy: {control.status}"}
    dense = control.quality
    if (judged := judged_alike([quality, dense])) is None:
        return own | {"note": "the dense control saw other test images"}
    (hits, dense_hits), groups = judged
    drop, low, high = paired_drop(dense_hits, hits, groups)
    loss: dict[str, object] = {"top1_drop": drop, "top1_drop_low": low, "top1_drop_high": high}
    return own | loss | {"top1_dense": dense.top1_after}


def judged_alike(qualities: Sequence[Quality]) -> tuple[list[NDArray[np.bool_]], list[int] | None] | None:
    """Which test images each got right, and the images' groups; None unless all were judged on the same ones."""
    if len({quality.images for quality in qualities}) > 1:
        return None
    try:
        groups = coarsest(quality.group_sizes for quality in qualities)
    except InvalidInput:
        return None
    return [unpack_hits(quality.hits_after, quality.images) for quality in qualities], groups


def _runtime_quality_columns(
    judged: RuntimeQuality, made: TrialRecord, control: TrialRecord | None
) -> dict[str, object]:
    """Top-1 in the runtime, and its loss against the control in float32; the agreement is not known."""
    if made.quality is None:
        return {}
    update = {"images": judged.images, "top1_after": judged.top1, "hits_after": judged.hits}
    return _quality_columns(made.quality.model_copy(update=update), control) | {"agreement": None}


def _measurement_columns(record: MeasurementRecord) -> dict[str, object]:
    measurement, timing = record.measurement, record.timing
    columns = _outcome_columns(record) | {
        "kind": "measurement",
        "key": record.key,
        "machine": measurement.machine,
        "runtime": measurement.runtime,
        "arithmetic": arithmetic_of(measurement.runtime),
        "threads": measurement.threads,
        "batch": measurement.batch,
        "processes": measurement.processes,
        "precision": measurement.precision,
    }
    if timing is None:
        return columns
    return columns | timing_columns(timing, record.environment)


def _orphan(trial: str) -> dict[str, object]:
    return {"trial": trial, "note": "its trial is not among the records"}


def _typed(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The frame with all columns; ``realised``, ``practical`` and ``headline`` follow from the others."""
    data = {name: [row.get(name, EMPTY[kind]) for row in rows] for name, kind in COLUMNS.items()}
    frame = pd.DataFrame({name: pd.Series(values, dtype=COLUMNS[name]) for name, values in data.items()})
    frame["realised"] = frame["speedup"] / frame["macs_ratio"]
    frame["images_per_s"] = frame["batch"].astype("float64") * 1e3 / frame["compressed_ms"]
    timed = frame["speedup"].notna()
    frame.loc[timed, DENSE] = with_dense_times(frame[timed])[DENSE]
    best = best_of(frame[timed], ["trial", "machine", *SETTING]).sort_index()
    judged = with_practical(best, _SAME_MACHINE, ["trial"])
    columns = [*BOUNDS, "practical_runtime"]
    frame.loc[judged.index, columns] = judged[columns]
    return frame
