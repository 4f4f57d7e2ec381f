"""What stands in a cell: the text of a value, and the columns of the tables that people read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.board import Row
from lowrank_bench.trial import CONTROL


def setting_text(runtime: str, threads: int, batch: int) -> str:
    """Such as ``onnxruntime 1t b64``, as Measurement.setting has it."""
    return f"{runtime} {threads}t b{batch}"


def interval_text(value: float, low: float, high: float, form: str) -> str:
    """Such as ``2.31 [2.28, 2.34]``; empty where the value is not known."""
    return "" if math.isnan(value) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def speedup_text(row: Row, form: str = ".2f") -> str:
    """The speedup with its interval."""
    return interval_text(row.speedup, row.speedup_low, row.speedup_high, form)


def loss_text(row: Row) -> str:
    """The loss of top-1 in points with its interval."""
    return interval_text(row.top1_drop, row.top1_drop_low, row.top1_drop_high, "+.2f")


def method_text(row: Row) -> str:
    """The method with the options that it was given."""
    return f"{row.method} {row.options}".strip()


class Column(NamedTuple):
    """A column of the tables that people read: its heading, and the text of its cell."""

    heading: str
    cell: Callable[[Row], str]
    in_terminal: bool = True


def _number(name: str, form: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = getattr(row, name)
        return "" if math.isnan(value) else f"{value:{form}}"

    return cell


def _place(row: Row) -> str:
    rank = "A/A" if row.method == CONTROL else "–" if pd.isna(row.rank) else str(row.rank)
    return f"{rank} ★" if row.pareto else rank


def _top1(row: Row) -> str:
    return "" if math.isnan(row.top1_after) else f"{row.top1_before:.2f} → {row.top1_after:.2f}"


def _seeds(row: Row) -> str:
    count = len(row.seeds.split(","))
    if count == 1 or math.isnan(row.top1_drop):
        return str(count)
    return f"{count} ({row.top1_drop_least:+.2f} to {row.top1_drop_most:+.2f})"


COLUMNS = (
    Column("#", _place),
    Column("Method", method_text),
    Column("Target", lambda row: row.target),
    Column("Setting", lambda row: setting_text(row.runtime, row.threads, row.batch)),
    Column("Speedup [95 %]", speedup_text),
    Column("Verdict", lambda row: f"{row.verdict}, unstable" if row.unstable else row.verdict),
    Column(
        "Loss, points [95 %]", lambda row: interval_text(row.top1_drop, row.top1_drop_low, row.top1_drop_high, "+.2f")
    ),
    Column("Top-1 before → after tuning", _top1, in_terminal=False),
    Column("Seeds (their losses)", _seeds, in_terminal=False),
    Column("MACs ratio", _number("macs_ratio", ".2f")),
    Column("Realised", _number("realised", ".0%")),
    Column("Practical", _number("practical", ".2f")),
    Column("Params ratio", _number("params_ratio", ".2f")),
    Column("Bytes ratio", _number("bytes_ratio", ".2f"), in_terminal=False),
    Column("Dense → compressed ms", lambda row: f"{row.dense_ms:.3g} → {row.compressed_ms:.3g}", in_terminal=False),
    Column("Processes", lambda row: str(row.processes), in_terminal=False),
    Column("Output error", _number("runtime_error", ".0e"), in_terminal=False),
    Column("Convert s", _number("convert_s", ".1f"), in_terminal=False),
    Column("Decompose s", _number("decompose_s", ".1f"), in_terminal=False),
    Column("Tune s", _number("finetune_s", ".1f"), in_terminal=False),
)
