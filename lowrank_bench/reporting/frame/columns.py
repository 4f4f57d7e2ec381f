"""The columns of the frame of records and their types, first those that are promised for good; which of them tell what
was made, and in which setting it was timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

What = tuple[str, str, str]
"""Method, options and target."""
Setting = tuple[str, int, int]
"""Runtime, threads and batch."""
WHAT = ["method", "options", "target"]
SETTING = ["runtime", "threads", "batch"]

# fmt: off
PROMISED = {
    "key": "str", "task": "str", "model": "str", "method": "str", "options": "str", "budget": "str", "recipe": "str",
    "seed": "Int64", "machine": "str", "status": "str", "reason": "str", "params": "Int64", "macs": "Int64",
    "params_ratio": "float64", "macs_ratio": "float64", "top1_dense": "float64", "top1_before": "float64",
    "top1_after": "float64", "top1_drop": "float64", "top1_drop_low": "float64", "top1_drop_high": "float64",
    "agreement": "float64", "runtime": "str", "threads": "Int64", "batch": "Int64", "speedup": "float64",
    "speedup_low": "float64", "speedup_high": "float64", "realised": "float64", "verdict": "str", "dense_ms": "float64",
    "compressed_ms": "float64", "p90_ms": "float64", "memory_mb": "float64", "decompose_s": "float64",
    "finetune_s": "float64", "environment": "str",
}
COLUMNS = PROMISED | {
    "kind": "str", "trial": "str", "target": "str", "bytes": "Int64", "bytes_ratio": "float64", "images": "Int64",
    "top1_original": "float64", "noise_floor": "float64", "unstable": "bool", "stop_reason": "str",
    "processes": "Int64", "precision": "float64", "dense_p90_ms": "float64", "images_per_s": "float64",
    "arithmetic": "str", "practical": "float64", "practical_low": "float64", "practical_high": "float64",
    "practical_runtime": "str", "runtime_dense_ms": "float64", "reference": "float64", "reference_low": "float64",
    "reference_high": "float64", "headline": "bool", "speedup_most": "float64", "runtime_error": "float64",
    "convert_s": "float64", "runtime_bytes": "Int64", "pairs_least": "Int64", "pairs": "float64",
    "pairs_most": "Int64", "stopped_by_time": "float64", "load_least": "float64", "load_most": "float64",
    "finished": "str", "code": "str", "note": "str",
}
# fmt: on
EMPTY = {"str": "", "bool": False, "Int64": None, "float64": None}
"""What stands where a column does not apply, by its type: numbers are missing (NA), text is empty."""


def what_of(row: Any) -> What:
    """What made the model of a row."""
    return row.method, row.options, row.target


def setting_of(row: Any) -> Setting:
    """In which setting a row was timed."""
    return row.runtime, row.threads, row.batch


def listed_seeds(seeds: Sequence[int] | pd.Series[Any]) -> str:
    """Such as ``0, 1, 2``."""
    return ", ".join(str(seed) for seed in sorted(set(seeds)))
