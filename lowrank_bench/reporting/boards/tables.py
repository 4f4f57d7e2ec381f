"""What a board shows, in whatever form: facts, the table of settings, of rows, of runtimes, of what has no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.boards.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import (
    COLUMNS,
    Column,
    interval_text,
    method_text,
    points_text,
    setting_text,
    speedup_text,
    where_text,
    with_unstable,
)
from lowrank_bench.reporting.boards.overall import Overall
from lowrank_bench.reporting.frame.clocked import clock_facts
from lowrank_bench.reporting.frame.columns import setting_of
from lowrank_bench.reporting.frame.dense_times import HEADLINE_MARGIN
from lowrank_bench.tasks.zoo import in_zoo
from lowrank_bench.trial import CONTROL

SETTINGS_LEGEND = "Fastest in each setting: by the speedup within it, of this recipe alone, by its interval's lower end"
FEW = 100
"""Test images below which the bootstrap of losses does not hold what it says; its test simulates it."""
MADE_TITLE, LOST_TITLE = "Made, not timed", "Refused or failed"
_OF_MODELS = (
    "Method", "Target", "Loss, points [95 %]", "Top-1 before → after tuning", "Seeds (their losses)", "MACs ratio",
    "Params ratio",
)  # fmt: skip


class Grid(NamedTuple):
    """A table as text: its headings and its rows of cells."""

    headings: list[str]
    cells: list[list[str]]


def facts(*boards: Board) -> list[tuple[str, str]]:
    """What stands above the tables of a board, or of several together: machine and environment, the test images, the
    dense control, wherever it was timed, the dates, and how the rows were timed.
    """
    records = pd.concat([_telling(board) for board in boards])
    lines = [*dict.fromkeys(fact for board in boards for fact in environment_facts(board))]
    images = sorted(set(records["images"].dropna()))
    if images:
        few = "; of so few, intervals of losses are too narrow, and [0, 0] says little" if min(images) < FEW else ""
        lines.append(("Test images", " or ".join(f"{count:,}" for count in images) + few))
    if unscored := [board for board in boards if not (board.scored or board.rows.empty)]:
        lines.append(("Top-1", _not_measured(unscored)))
    controls = pd.concat([board.controls for board in boards])
    if controls["top1_dense"].notna().any():
        came, tuned = controls["top1_original"].mean(), controls["top1_dense"].mean()
        seeds = controls.loc[controls["top1_dense"].notna(), "seed"].nunique()
        of_seeds = f", means of {seeds} seeds" if seeds > 1 else ""
        lines.append(
            ("Dense control, top-1", f"{came:.2f} % as it came, {tuned:.2f} % after the same tuning{of_seeds}")
        )
    if lacking := [board.model for board in boards if not _has_control(board)]:
        lines.append(("A/A control", "not timed here" + f" of {', '.join(lacking)}" * (len(boards) > 1)))
    dates = sorted({text[:10] for text in records["finished"]})
    lines.append(("Recorded", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"))
    if several := sum(int((board.rows["processes"] > 1).sum()) for board in boards):
        unstable = sum(int((board.rows["unstable"] & (board.rows["processes"] > 1)).sum()) for board in boards)
        lines.append(("Unstable, in every setting", f"{unstable} of {several} rows"))
    lines += clock_facts(records)
    notes = records["note"][records["note"] != ""].value_counts().sort_index()
    return lines + [("Note", f"{count} records: {note}") for note, count in notes.items()]


def environment_facts(board: Board) -> list[tuple[str, str]]:
    """The machine of a board, and processor and versions."""
    lines = [("Machine", board.machine)] if board.machine else []
    return lines + [("Environment", text) for text in sorted(set(_telling(board)["environment"]) - {""})]


def _telling(board: Board) -> pd.DataFrame:
    """The timings that the rows were made of; all records where there is none."""
    return board.records if board.timings.empty else board.timings


def _has_control(board: Board) -> bool:
    """Whether its clock was tried on the dense model itself; nothing is asked of a board without times."""
    return board.rows.empty or bool((board.rows["method"] == CONTROL).any())


def _not_measured(boards: Sequence[Board]) -> str:
    """Of boards without accuracies, with what their records tell of weights and ranks."""
    told = []
    if all(in_zoo(board.model) and "@" not in board.model for board in boards):
        told.append("random weights")
    rows = pd.concat([board.rows for board in boards])
    targets = rows.loc[rows["method"] != CONTROL, "target"]
    if targets.str.startswith(("macs/", "params/")).any():
        told.append("budgets met by one fraction for all layers")
    return ": ".join(filter(None, ("not measured", ", ".join(told))))


def settings_grid(board: Board) -> Grid:
    """For each setting: how slow the dense model is, how far chance reaches, and the fastest beyond it at each loss."""
    thresholds = THRESHOLDS if board.scored else THRESHOLDS[:1]
    fastest = [f"Fastest with loss ≤ {threshold:g}" for threshold in THRESHOLDS] if board.scored else ["Fastest"]
    cells = []
    for number, setting in enumerate(board.settings):
        rows = board.in_setting(setting)
        controls = [speedup_text(row, ".3f") for row in rows_of(rows[rows["method"] == CONTROL])]
        best = [board.fastest(setting, threshold) for threshold in thresholds]
        cells.append(
            [
                setting_text(*setting) + (" (headline)" if number == 0 else ""),
                f"{rows['runtime_dense_ms'].iloc[0]:.3g}",
                "yes" if rows["headline"].all() else "no",
                f"{rows['noise_floor'].median():.1%}",
                "; ".join(controls) or f"no {CONTROL} row",
                *("none" if row is None else f"{_what(row)}: {speedup_text(row)}" for row in best),
            ]
        )
    return Grid(["Setting", "Dense ms", "Counts for a headline", "Noise floor", "A/A speedup [95 %]", *fastest], cells)


def runtimes_grid(board: Board) -> Grid:
    """What each method's MACs become in each setting: the speedup with its interval, and the share of the MACs ratio
    that it is; *unstable* where its processes disagree.
    """
    cells: dict[tuple[str, str], dict[tuple[str, int, int], str]] = {}
    for row in rows_of(board.rows[board.rows["method"] != CONTROL]):
        text = with_unstable(f"{speedup_text(row)}, {row.realised:.0%}", row.unstable)
        cells.setdefault((method_text(row), row.target), {})[setting_of(row)] = text
    headings = ["Method", "Target", *(setting_text(*setting) for setting in board.settings)]
    lines = [[*what, *(found.get(setting, "") for setting in board.settings)] for what, found in sorted(cells.items())]
    return Grid(headings, lines)


def rows_grid(board: Board, columns: Sequence[Column] = COLUMNS) -> Grid:
    """The ranked rows."""
    cells = [[column.cell(row) for column in columns] for row in rows_of(board.rows)]
    return Grid([column.heading for column in columns], cells)


def made_grid(board: Board) -> Grid:
    """What was made and never timed: sizes and losses alone."""
    columns = [column for column in COLUMNS if column.heading in _OF_MODELS]
    cells = [[column.cell(row) for column in columns] for row in rows_of(board.made)]
    return Grid([column.heading for column in columns], cells)


def lost_grid(board: Board) -> Grid:
    """What was refused or failed, and why."""
    cells = [
        [
            method_text(row),
            row.target,
            "" if pd.isna(row.threads) else where_text(row),
            row.seeds,
            row.status,
            row.reason,
        ]
        for row in rows_of(board.lost)
    ]
    return Grid(["Method", "Target", "Setting", "Seeds", "Status", "Reason"], cells)


def untimed_grids(board: Board) -> list[tuple[str, Grid]]:
    """Of what has no time the tables that are not empty, with their titles."""
    grids = [(MADE_TITLE, made_grid(board)), (LOST_TITLE, lost_grid(board))]
    return [(title, grid) for title, grid in grids if grid.cells]


def legend(max_loss: float) -> str:
    """What the tables of a board mean that ranks what loses at most so many points, in sentences."""
    return (
        "Ranked within each setting by the lower bound of the speedup, among what loses at most "
        f"{points_text(max_loss)} of top-1 (– loses more, or its loss is not known). ◆ nothing else in the "
        "setting is as fast and as accurate. A/A is the dense model against its own copy. Speedup is dense over "
        "compressed time under the same runtime: median of pair ratios; over several processes or seeds, geometric "
        "mean with t-interval. Loss is counted from the dense control after the same tuning: mean over seeds, with the "
        "lowest and highest end of their paired intervals. Realised is speedup over MACs ratio. Practical is the dense "
        "model in its fastest runtime in float32 over the compressed one in its fastest of the row's arithmetic, at "
        "the same threads and batch (A/A rows of runtimes in bfloat16 and int8: what a user would pick instead; their "
        "top-1 after tuning, and that of all rows there, is what it came to in the runtime); dense times of "
        "runtimes are compared within an hour, and the interval holds how far hours disagree; a runtime counts for a "
        f"headline where the dense model is at most {HEADLINE_MARGIN:.0%} slower than in its fastest. Unstable: its "
        "processes differ by more than their own intervals explain. Output error is against "
        "eager. Ratios are dense over compressed. Dense ms is one estimate of all rows of a network in a runtime, over "
        "recipes and hours. A method of fewer channels is no low-rank method but the control beside them."
    )


def _what(row: Row) -> str:
    return f"{method_text(row)} {row.target}"


def overall_grid(overall: Overall) -> Grid:
    """All networks together."""
    headings = [
        "#",
        "Method",
        "Target",
        "Setting",
        "Speedup, geometric mean",
        "Tried on",
        "Own speedup on",
        "On the front of",
    ]
    cells = [
        [
            "–" if row.rank is None else str(row.rank),
            method_text(row),
            row.target,
            setting_text(*row.setting),
            interval_text(row.speedup, row.low, row.high, ".2f"),
            f"{row.tried} of {row.networks} networks",
            f"{row.kept} of {row.tried}",
            f"{row.front} of {row.tried}",
        ]
        for row in overall.rows
    ]
    return Grid(headings, cells)


def overall_legend(overall: Overall) -> str:
    """What that table means, in sentences."""
    lost = f", or lost more than {points_text(overall.max_loss)} of top-1," if overall.scored else ""
    unknown = "; where its loss is not known it counts as not tried" if overall.scored else ""
    return (
        f"Over {', '.join(overall.networks)}. Geometric means of the speedups, and in brackets of the ends of their "
        f"95 % intervals; a network that a method refused or failed on{lost} counts as 1.00. Ranked at each target in "
        "each setting by the mean of the lower ends; – was not tried on every network that others were tried on there, "
        f"or counts as 1.00 on all{unknown}. The front is each board's own: nothing there is as fast and as accurate."
    )


def own_facts(*boards: Board) -> list[tuple[str, str]]:
    """What holds for these boards but not for every board of the machine."""
    known = {fact for board in boards for fact in environment_facts(board)}
    return [fact for fact in facts(*boards) if fact not in known]
