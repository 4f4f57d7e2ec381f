"""Boards as people and programs read them: markdown, csv and the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lowrank_bench.reporting.board import ROW_COLUMNS, THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.practical import HEADLINE_MARGIN
from lowrank_bench.trial import CONTROL


class Column(NamedTuple):
    """A column of the tables that people read: its heading, and the text of its cell."""

    heading: str
    cell: Callable[[Row], str]
    in_terminal: bool = True


def board_markdown(board: Board) -> str:
    """One board as a section of markdown."""
    parts = [f"## {escape(board.name)}", _bullets(facts(board))]
    if not board.rows.empty:
        parts += [markdown_table(_setting_headings(board), _settings(board)), runtime_table(board)]
        parts += [markdown_table([column.heading for column in COLUMNS], _cells(board, COLUMNS)), _legend(board)]
    if not board.unranked.empty:
        parts += ["### Without a time", markdown_table(_UNRANKED_HEADINGS, _unranked_cells(board))]
    return "\n\n".join(parts)


def to_csv(boards: Sequence[Board]) -> str:
    """Every row of every board, then all that has no time with its status and reason; six significant digits."""
    tables = [board.rows.assign(status="ok") for board in boards] + [board.unranked for board in boards]
    rows = [row for table in tables for row in table.to_dict("records")]
    table = pd.DataFrame(rows, columns=[*ROW_COLUMNS, "status", "reason"])
    whole = dict.fromkeys(("rank", "threads", "batch", "bytes", "runtime_bytes", "processes", "images"), "Int64")
    return table.astype(whole).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def to_terminal(boards: Sequence[Board]) -> Group:
    """Every board for rich to print: the columns that fit a terminal."""
    parts: list[Text | Table] = []
    for board in boards:
        parts += [Text(board.name, style="bold"), Text("\n".join(f"{name}: {text}" for name, text in facts(board)))]
        if not board.rows.empty:
            parts.append(_rich_table(_setting_headings(board), _settings(board)))
            columns = [column for column in COLUMNS if column.in_terminal]
            parts += [_rich_table([column.heading for column in columns], _cells(board, columns)), Text(_legend(board))]
        if not board.unranked.empty:
            parts += [Text("Without a time"), _rich_table(_UNRANKED_HEADINGS, _unranked_cells(board))]
        parts.append(Text())
    return Group(*parts)


def facts(board: Board) -> list[tuple[str, str]]:
    """What stands above the tables: machine and environment, the test images, the dense control, the dates."""
    timed = board.records[board.records["speedup"].notna()]
    records = board.records if timed.empty else timed
    lines = [("Machine", board.machine)] if board.machine else []
    lines += [("Environment", text) for text in sorted(set(records["environment"]) - {""})]
    images = sorted(set(records["images"].dropna()))
    if images:
        lines.append(("Test images", " or ".join(f"{count:,}" for count in images)))
    if not (board.scored or board.rows.empty):
        lines.append(("Top-1", "not measured: random weights, ranks by one fraction for all layers, for speed alone"))
    control = board.records[(board.records["method"] == CONTROL) & board.records["top1_after"].notna()]
    if not control.empty:
        came, tuned = control["top1_original"].mean(), control["top1_dense"].mean()
        lines.append(("Dense control, top-1", f"{came:.2f} % as it came, {tuned:.2f} % after the same tuning"))
    dates = sorted({text[:10] for text in records["finished"]})
    lines.append(("Recorded", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"))
    notes = records["note"][records["note"] != ""].value_counts().sort_index()
    return lines + [("Note", f"{count} rows: {note}") for note, count in notes.items()]


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


def escape(text: str) -> str:
    """Text as it stands, in one line, whatever characters of markdown or html it holds."""
    text = " ".join(text.split())
    # An underscore within a word means nothing, and names are full of them.
    text = re.sub(r"[\\`*|~$#]|(?<=\])\(|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, its cells escaped."""
    lines = [headings, ["---"] * len(headings), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


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
_SETTING_HEADINGS = ("Setting", "Dense ms", "Counts for a headline", "Noise floor", "A/A speedup [95 %]")
_UNRANKED_HEADINGS = ("Method", "Target", "Setting", "Seeds", "Status", "Reason")


def _cells(board: Board, columns: Sequence[Column]) -> list[list[str]]:
    return [[column.cell(row) for column in columns] for row in rows_of(board.rows)]


def _unranked_cells(board: Board) -> list[list[str]]:
    return [
        [
            method_text(row),
            row.target,
            "" if pd.isna(row.threads) else setting_text(row.runtime, row.threads, row.batch),
            row.seeds,
            row.status,
            row.reason,
        ]
        for row in rows_of(board.unranked)
    ]


def runtime_table(board: Board) -> str:
    """What each method's MACs become in each setting, in markdown: the speedup with its interval, and the share of the
    MACs ratio that it is.
    """
    cells: dict[tuple[str, str], dict[tuple[str, int, int], str]] = {}
    for row in rows_of(board.rows[board.rows["method"] != CONTROL]):
        text = f"{speedup_text(row)}, {row.realised:.0%}"
        cells.setdefault((method_text(row), row.target), {})[(row.runtime, row.threads, row.batch)] = text
    headings = ["Method", "Target", *(setting_text(*setting) for setting in board.settings)]
    lines = [[*what, *(found.get(setting, "") for setting in board.settings)] for what, found in sorted(cells.items())]
    return markdown_table(headings, lines)


def _setting_headings(board: Board) -> list[str]:
    fastest = [f"Fastest with loss ≤ {threshold:g}" for threshold in THRESHOLDS] if board.scored else ["Fastest"]
    return [*_SETTING_HEADINGS, *fastest]


def _settings(board: Board) -> list[list[str]]:
    """For each setting: how slow the dense model is, how far chance reaches, and the fastest beyond it at each loss."""
    table = []
    for number, setting in enumerate(board.settings):
        rows = board.in_setting(setting)
        controls = [speedup_text(row, ".3f") for row in rows_of(rows[rows["method"] == CONTROL])]
        fastest = [board.fastest(setting, threshold) for threshold in (THRESHOLDS if board.scored else THRESHOLDS[:1])]
        table.append(
            [
                setting_text(*setting) + (" (headline)" if number == 0 else ""),
                f"{rows['dense_ms'].median():.3g}",
                "yes" if rows["headline"].all() else "no",
                f"{rows['noise_floor'].median():.1%}",
                "; ".join(controls) or f"no {CONTROL} row",
                *("none" if row is None else f"{_what(row)}: {speedup_text(row)}" for row in fastest),
            ]
        )
    return table


def _what(row: Row) -> str:
    return f"{method_text(row)} {row.target}"


def _legend(board: Board) -> str:
    return (
        "Ranked within each setting by the lower bound of the speedup, among what loses at most "
        f"{board.max_loss:g} points of top-1 (– loses more, or its loss is not known). ★ nothing else in the setting "
        "is as fast and as accurate. A/A is the dense model against its own copy. Speedup is dense over compressed "
        "time under the same runtime: median of pair ratios; over several processes or seeds, geometric "
        "mean with t-interval. Loss "
        "is counted from the dense control after the same tuning: mean over seeds, with the lowest and highest end of "
        "their paired intervals. Realised is speedup over MACs ratio. Practical is "
        "the dense model in its fastest runtime in float32 over the compressed one in its fastest of the row's "
        "arithmetic, at the same threads and batch (A/A rows of runtimes in bfloat16 and int8: what a user would pick "
        "instead; their top-1 after tuning, and that of all rows there, is what it came to in the runtime); "
        f"a runtime counts for a headline where the dense model is at most {HEADLINE_MARGIN:.0%} slower than in its "
        "fastest. Unstable: its processes differ by more than their own intervals explain. Output error is against "
        "eager. Ratios are dense over compressed."
    )


def _bullets(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in lines)


def _rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, box=box.SIMPLE)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
