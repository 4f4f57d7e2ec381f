"""What stands in a cell: the text of a value, and the columns of the tables that people read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.boards.board import Row
from lowrank_bench.reporting.frame.columns import setting_of, what_of
from lowrank_bench.trial import CONTROL

UNSTABLE = "unstable"
NO_LOW_RANK = {"narrow": "fewer channels"}
"""Controls that are recorded as methods, and what they do instead of low rank."""


def setting_text(runtime: str, threads: int, batch: int) -> str:
    """Such as ``onnxruntime 1t b64``, as Measurement.setting has it."""
    return f"{runtime} {threads}t b{batch}"


def where_text(row: Row) -> str:
    """The setting of a row."""
    return setting_text(*setting_of(row))


def workload_text(threads: int, batch: int) -> str:
    """Such as ``1 thread, batch 64``."""
    return f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}"


def interval_text(value: float, low: float, high: float, form: str) -> str:
    """Such as ``2.31 [2.28, 2.34]``; without the ends where these are not known, empty where the value is not."""
    if math.isnan(value):
        return ""
    return signed(value, form) + ("" if math.isnan(low) else f" [{signed(low, form)}, {signed(high, form)}]")


def signed(value: float, form: str) -> str:
    """A number as text; what rounds to zero has no sign."""
    text = f"{value:{form}}"
    return text if text.strip("+-0.%") else text.lstrip("+-")


def speedup_text(row: Row, form: str = ".2f") -> str:
    """The speedup with its interval."""
    return interval_text(row.speedup, row.speedup_low, row.speedup_high, form)


def practical_text(row: Row) -> str:
    """The practical speedup with its interval, where that is known."""
    return interval_text(row.practical, row.practical_low, row.practical_high, ".2f")


def verdict_text(row: Row) -> str:
    """The verdict, and whether its processes disagree."""
    return with_unstable(row.verdict, row.unstable)


def with_unstable(text: str, unstable: bool) -> str:
    """Such as ``faster, unstable``, where processes disagree by more than their own intervals explain."""
    return f"{text}, {UNSTABLE}" if unstable else text


def points_text(points: float) -> str:
    """Such as ``0.5 points``."""
    return f"{points:g} point" + "s" * (points != 1)


def seeds_of(row: Row) -> int:
    """Of how many seeds' models a row tells."""
    return len(row.seeds.split(","))


def loss_text(row: Row) -> str:
    """The loss of top-1 in points with its interval."""
    return interval_text(row.top1_drop, row.top1_drop_low, row.top1_drop_high, "+.2f")


def method_name(method: str) -> str:
    """The method, and what it is where that is not low rank."""
    return f"{method} ({NO_LOW_RANK[method]})" if method in NO_LOW_RANK else method


def method_text(row: Row) -> str:
    """The method with the options that it was given."""
    return f"{method_name(row.method)} {row.options}".strip()


def row_id(row: Row) -> str:
    """A name of a board's row for links, the same in every report: letters and digits only."""
    names = (row.task, row.model, row.recipe, row.machine, *what_of(row))
    text = "\0".join([*names, where_text(row)])
    return "row-" + hashlib.sha256(text.encode()).hexdigest()[:12]


class Column(NamedTuple):
    """A column of the tables that people read: its heading, the text of its cell, and the row's value by which it is
    sorted (none: by the text).
    """

    heading: str
    cell: Callable[[Row], str]
    order: str = ""
    in_terminal: bool = True


def _number(name: str, form: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = getattr(row, name)
        return "" if math.isnan(value) else f"{value:{form}}"

    return cell


def _place(row: Row) -> str:
    rank = "A/A" if row.method == CONTROL else "–" if pd.isna(row.rank) else str(row.rank)
    return f"{rank} ◆" if row.pareto else rank


def _top1(row: Row) -> str:
    return "" if math.isnan(row.top1_after) else f"{row.top1_before:.2f} → {row.top1_after:.2f}"


def _seeds(row: Row) -> str:
    count = seeds_of(row)
    if count == 1 or math.isnan(row.top1_drop):
        return str(count)
    return f"{count} ({signed(row.top1_drop_least, '+.2f')} to {signed(row.top1_drop_most, '+.2f')})"


COLUMNS = (
    Column("#", _place, "rank"),
    Column("Method", method_text),
    Column("Target", lambda row: row.target),
    Column("Setting", where_text),
    Column("Speedup [95 %]", speedup_text, "speedup_low"),
    Column("Verdict", verdict_text),
    Column("Loss, points [95 %]", loss_text, "top1_drop"),
    Column("Top-1 before → after tuning", _top1, "top1_after", in_terminal=False),
    Column("Seeds (their losses)", _seeds, in_terminal=False),
    Column("MACs ratio", _number("macs_ratio", ".2f"), "macs_ratio"),
    Column("Realised", _number("realised", ".0%"), "realised"),
    Column("Practical [95 %]", practical_text, "practical_low"),
    Column("Params ratio", _number("params_ratio", ".2f"), "params_ratio"),
    Column("Bytes ratio", _number("bytes_ratio", ".2f"), "bytes_ratio", in_terminal=False),
    Column("Processes", lambda row: str(row.processes), "processes", in_terminal=False),
    Column("Output error", _number("runtime_error", ".0e"), "runtime_error", in_terminal=False),
    Column("Convert s", _number("convert_s", ".1f"), "convert_s", in_terminal=False),
    Column("Decompose s", _number("decompose_s", ".1f"), "decompose_s", in_terminal=False),
    Column("Tune s", _number("finetune_s", ".1f"), "finetune_s", in_terminal=False),
)
