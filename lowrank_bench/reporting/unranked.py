"""What of a board did not end with a time, and why."""

from __future__ import annotations

import pandas as pd

from lowrank_bench.record import Status
from lowrank_bench.reporting.columns import SETTING, WHAT, listed_seeds

# fmt: off
UNRANKED_COLUMNS = [
    "task", "model", "recipe", "machine", "method", "options", "target", "runtime", "threads", "batch", "seeds",
    "status", "reason",
]
# fmt: on
NOT_TIMED = "not timed"


def without_time(records: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """Records without a time, but for good models of further seeds where one seed of them was timed."""
    shown = pd.MultiIndex.from_frame(records[WHAT]).isin(pd.MultiIndex.from_frame(timed[WHAT]))
    good = (records["kind"] == "trial") & (records["status"] == str(Status.OK))
    return records[records["speedup"].isna() & ~(good & shown)]


def unranked_rows(place: dict[str, str], records: pd.DataFrame) -> list[dict[str, object]]:
    """What has no time, with its reason; seeds that ended alike share a row."""
    untimed = (records["kind"] == "trial") & (records["status"] == str(Status.OK))
    records = records.assign(status=records["status"].mask(untimed, NOT_TIMED))
    alike = [*WHAT, *SETTING, "status", "reason"]
    return [
        place | dict(zip(alike, values, strict=True)) | {"seeds": listed_seeds(group["seed"])}
        for values, group in records.groupby(alike, dropna=False)
    ]
