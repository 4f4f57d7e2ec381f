"""What of a board did not end with a time: why, and of what was made what it lost."""

from __future__ import annotations

import pandas as pd

from lowrank_bench.record import Status
from lowrank_bench.reporting.frame.columns import SETTING, WHAT
from lowrank_bench.reporting.frame.pooling import one_of_each_seed, over_seeds

# fmt: off
UNRANKED_COLUMNS = [
    "task", "model", "recipe", "machine", "method", "options", "target", "runtime", "threads", "batch", "macs_ratio",
    "params_ratio", "bytes_ratio", "bytes", "top1_dense", "top1_before", "top1_after", "top1_drop", "top1_drop_low",
    "top1_drop_high", "top1_drop_least", "top1_drop_most", "seeds", "images", "status", "reason",
]
# fmt: on
NOT_TIMED = "not timed"


def without_time(records: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """Records without a time, but for good models of further seeds where one seed of them was timed."""
    shown = pd.MultiIndex.from_frame(records[WHAT]).isin(pd.MultiIndex.from_frame(timed[WHAT]))
    good = (records["kind"] == "trial") & (records["status"] == str(Status.OK))
    return records[records["speedup"].isna() & ~(good & shown)]


def unranked_rows(place: dict[str, str], records: pd.DataFrame) -> list[dict[str, object]]:
    """What has no time, with its reason, and size and loss of what was made; seeds that ended alike share a row."""
    untimed = (records["kind"] == "trial") & (records["status"] == str(Status.OK))
    records = records.assign(status=records["status"].mask(untimed, NOT_TIMED))
    alike = [*WHAT, *SETTING, "status", "reason"]
    return [
        place | dict(zip(alike, values, strict=True)) | over_seeds(one_of_each_seed(group))
        for values, group in records.groupby(alike, dropna=False)
    ]
