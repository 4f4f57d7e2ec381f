"""How long a call takes, in the middle and in its slow tenth, and what the process that timed it held in memory."""

from __future__ import annotations

import math

from lowrank_bench.reporting.boards.board import Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import method_text, where_text
from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.trial import CONTROL

LATENCY_TITLE = "Latency, throughput and memory"
LATENCY_LEGEND = (
    "p50 and p90 are the median and the 90th percentile of the times of one call, the median over the processes. Where "
    "a call takes less than 1 ms, p90 is of the means of loops of calls, not of single ones. Images/s are the "
    "compressed model's at p50. Memory is the most that the whole timing process held: the dense model and a copy of "
    "it, the compressed model, their conversions and the libraries; it is not what the compressed model alone needs; "
    "not known where what was recorded is the memory of the process that started it. "
    "Model MB: the compressed model as the runtime keeps it."
)


def latency_grid(board: Board) -> Grid:
    """For every row of a board p50 and p90 of both models in ms, images/s, the memory of the process, the model's
    size.
    """
    headings = [
        "Setting",
        "Method",
        "Target",
        "Dense p50 / p90 ms",
        "Compressed p50 / p90 ms",
        "Images/s",
        "Process's peak memory, MB",
        "Model MB",
    ]
    return Grid(headings, [_cells(row) for row in rows_of(board.rows)])


def _cells(row: Row) -> list[str]:
    return [
        where_text(row),
        method_text(row) + (" (A/A)" if row.method == CONTROL else ""),
        row.target,
        f"{_three_digits(row.dense_ms)} / {_three_digits(row.dense_p90_ms)}",
        f"{_three_digits(row.compressed_ms)} / {_three_digits(row.p90_ms)}",
        _three_digits(row.images_per_s),
        "not known" if math.isnan(row.memory_mb) else f"{row.memory_mb:.0f}",
        _three_digits(row.runtime_bytes / 1e6),
    ]


def _three_digits(value: float) -> str:
    """Three significant digits at least, and no power of ten."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(digits, 0)}f}"
