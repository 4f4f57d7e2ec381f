"""One row from several timings and seeds of one model: what counts, and how it is taken together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lowrank_bench.measurement.statistics import RatioInterval, pool_processes, verdict
from lowrank_bench.reporting.frame.clocked import pooled_clock
from lowrank_bench.reporting.frame.columns import SETTING, WHAT, listed_seeds
from lowrank_bench.reporting.frame.dense_times import DENSE

# fmt: off
_OF_MODELS = [
    "macs_ratio", "params_ratio", "bytes_ratio", "top1_dense", "top1_before", "top1_after", "top1_drop",
]
_SECONDS = ["decompose_s", "finetune_s"]
_OF_TIMES = ["dense_ms", "dense_p90_ms", "compressed_ms", "p90_ms", "images_per_s", "convert_s"]
# fmt: on


def pooled_row(group: pd.DataFrame, models: pd.DataFrame) -> dict[str, object]:
    """One method, target and setting, over the timings that ``best_evidence`` left and over the models of all seeds,
    timed here or not; in a runtime of fewer bits, whose accuracy is its own, over those that were timed in it. Seconds
    of making them are those of the timed ones.

    Speed does not depend on the seed, so seeds are repetitions, see ``pooled_speedup``.
    Accuracy does: the mean, with the lowest and the highest end of the seeds' paired intervals, which covers the chance
    in the test images and in training both.
    """
    first = group.iloc[0]
    interval = pooled_speedup(group)
    floor = group["noise_floor"].median()
    called = first["verdict"] if len(group) == 1 else verdict(interval, floor)
    of_models = over_seeds(models)
    return {
        **first[[*WHAT, *SETTING]],
        **of_models,
        **group[_SECONDS].median(),
        **group[_OF_TIMES].mean(),
        **first[["arithmetic", *DENSE]],
        "speedup": interval.ratio,
        "speedup_low": interval.low,
        "speedup_high": interval.high,
        "speedup_most": group["speedup_most"].max(),
        "realised": interval.ratio / of_models["macs_ratio"],
        "verdict": called,
        "noise_floor": floor,
        "unstable": group["unstable"].any(),
        **pooled_clock(group),
        "processes": group["processes"].min(),
        "memory_mb": group["memory_mb"].max(),
        "runtime_error": group["runtime_error"].max(),
        "runtime_bytes": group["runtime_bytes"].max(),
        "environment": " / ".join(sorted(set(group["environment"]))),
        "finished": group["finished"].max(),
    }


def over_seeds(models: pd.DataFrame) -> dict[str, Any]:
    """What a row tells of its models alone, whether they were timed or not; ``models`` has a row for each seed."""
    return {
        **models[_OF_MODELS].mean(),
        "top1_drop_low": models["top1_drop_low"].min(),
        "top1_drop_high": models["top1_drop_high"].max(),
        "top1_drop_least": models["top1_drop"].min(),
        "top1_drop_most": models["top1_drop"].max(),
        "seeds": listed_seeds(models["seed"]),
        "images": models["images"].max(),
        "bytes": models["bytes"].max(),
    }


def as_made(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the frame's rows those that tell of a model as it was made: the timed ones only in float32, as in fewer bits
    its accuracy is the runtime's.
    """
    return rows[rows["macs_ratio"].notna() & rows["arithmetic"].isin(["", "float32"])]


def one_of_each_seed(models: pd.DataFrame, machine: str = "") -> pd.DataFrame:
    """A row for each seed; where several machines trained networks of their own, of that which the machine timed."""
    here = models["machine"] == machine
    return pd.concat([models[here], models[~here]]).drop_duplicates("seed")


def best_evidence(group: pd.DataFrame) -> pd.DataFrame:
    """One row per seed, the seeds in order: see ``best_of``."""
    return best_of(group, ["seed"]).sort_values("seed")


def best_of(rows: pd.DataFrame, same: Sequence[str]) -> pd.DataFrame:
    """Of rows that share these columns one: where a model was timed more than once in a setting, that from the most
    processes; of these the one of the lowest noise floor, which is the dense model against itself and knows nothing of
    the speedup; then the one that ended last.
    """
    order = rows.sort_values(["processes", "noise_floor", "finished"], ascending=[True, False, True], kind="stable")
    return order.drop_duplicates(list(same), keep="last")


def pooled_speedup(group: pd.DataFrame) -> RatioInterval:
    """Of one model in one setting, over the seeds that ``best_evidence`` left: the interval of the only one, or the
    t-interval on the logarithms of several, but none narrower than their own in the median: seeds may have been timed
    in company, in the same processes, so that what these disagree about is in each of them.
    """
    if len(group) == 1:
        first = group.iloc[0]
        return RatioInterval(first["speedup"], first["speedup_low"], first["speedup_high"])
    ratio, low, high = pool_processes(list(group["speedup"]))
    own = float((group["speedup_high"] / group["speedup_low"]).median()) ** 0.5
    return RatioInterval(ratio, min(low, ratio / own), max(high, ratio * own))
