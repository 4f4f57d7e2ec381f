"""What fewer MACs become: the ends of the speedups of each machine, and how many models gain nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lowrank_bench.record import Status
from lowrank_bench.reporting.boards.board import Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import method_text, practical_text, where_text
from lowrank_bench.reporting.boards.choice import (
    NOT_KNOWN,
    free_choice,
    keeping,
    practical_verdict,
    reserve,
    shared_workloads,
    workloads,
)
from lowrank_bench.reporting.boards.promises import SAVING
from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.reporting.frame.columns import What, what_of

SPANS_TITLE = "What fewer MACs become"
SPANS_LEGEND = (
    "times as fast as the dense network [95 %], each model in the fastest runtime that it was timed in; same: no gain "
    "beyond the noise; not known: timed in other hours than the dense one; narrow, the same network with fewer "
    "channels, is no low-rank method; the networks differ between machines and lines"
)
_SPANS_HEADINGS = ["Machine", "Fewer MACs", "Networks", "Models", "Methods refused or failed", "Least", "Most"]
_ANYWHERE = "at any budget and recipe, at the threads and batch of the headlines"
_SPANS = {
    "macs/2": "2x in the whole network (macs/2)",
    "macs/4": "4x in the whole network (macs/4)",
    "macs/4 (convs)": "4x in its convolutions, the rest as it was (macs/4 (convs))",
}


def spans_grid(boards: Sequence[Board]) -> Grid:
    """Both ends, on each machine, of the practical speedups, by the ends of their intervals as winners are: budgets of
    the whole network and of its convolutions apart. Methods that came to no time there are counted, and so are models
    whose interval is not known. Without a line where nothing was timed at these budgets.
    """
    return Grid(_SPANS_HEADINGS, [line for machine, here in _by_machine(boards) for line in _spans(machine, here)])


def without_gain(boards: Sequence[Board]) -> list[tuple[str, str]]:
    """Of each machine, how many models with fewer MACs at all budgets are slower than the dense network, how many no
    faster, and of how many neither is known.
    """
    counts = [
        (machine, _counted([row for board in here for row in _models(board)])) for machine, here in _by_machine(boards)
    ]
    return [(f"{machine}, {_ANYWHERE}", f"{count}.") for machine, count in counts if count]


def untimed(board: Board, target: str) -> dict[str, str]:
    """How each method ended of which no variant came to a time at a target: refused, where it said so by name, or
    failed.
    """
    timed = set(board.rows.loc[board.rows["target"] == target, "method"])
    ends: dict[str, set[str]] = {}
    for (method, _, at), statuses in board.ends_without_time().items():
        if at == target and method not in timed:
            ends.setdefault(method, set()).update(statuses)
    return {method: "refused" if ends[method] == {str(Status.SKIPPED)} else "failed" for method in sorted(ends)}


def _by_machine(boards: Sequence[Board]) -> list[tuple[str, list[Board]]]:
    machines = sorted({board.machine for board in boards})
    return [(machine, [board for board in boards if board.machine == machine]) for machine in machines]


def _models(board: Board) -> list[Row]:
    """Every model once: at the headline's threads and batch, or where it was timed at others alone at those of the
    table that networks share.
    """
    told = [workloads(board)[0], *([] if board.scored else shared_workloads(board)[:1])]
    models: dict[What, Row] = {}
    for workload in told:
        for row in rows_of(keeping(free_choice(board, *workload), None)):
            models.setdefault(what_of(row), row)
    return [*models.values()]


def _spans(machine: str, boards: Sequence[Board]) -> list[list[str]]:
    lines: list[list[str]] = []
    models = {board.name: _models(board) for board in boards}
    for target, fewer in _SPANS.items():
        some = [row for rows in models.values() for row in rows if row.target == target]
        if not some:
            continue
        networks = len({(row.task, row.model) for row in some})
        known = [row for row in some if practical_verdict(row) != NOT_KNOWN]
        count = str(len(some)) + f" ({len(some) - len(known)} {NOT_KNOWN})" * (len(known) < len(some))
        refused = sum(len(untimed(board, target)) for board in boards)
        ends = (
            min(known, key=lambda row: row.practical_high, default=None),
            max(known, key=lambda row: row.practical_low, default=None),
        )
        lines.append(["" if lines else machine, fewer, str(networks), count, str(refused), *map(_end, ends)])
    return lines


def _end(row: Row | None) -> str:
    if row is None:
        return NOT_KNOWN
    where = f"{method_text(row)} on {row.model} in {where_text(row)}"
    return "; ".join([f"{practical_text(row)}, {where}", *reserve(row)])


def _counted(rows: Sequence[Row]) -> str:
    rows = [row for row in rows if row.macs_ratio >= SAVING]
    judged = Counter(map(practical_verdict, rows))
    parts = []
    if slower := [row for row in rows if practical_verdict(row) == "slower"]:
        worst = min(slower, key=lambda row: row.practical_high)
        what = f"{method_text(worst)} {worst.target} on {worst.model}"
        parts = [f"{len(slower)} slower than the dense one (down to {practical_text(worst)}: {what})"]
    parts += [f"{judged['same']} with no gain beyond noise"] if judged["same"] else []
    parts = parts or ["none without a gain beyond noise"]
    parts += [f"{judged[NOT_KNOWN]} {NOT_KNOWN}"] if judged[NOT_KNOWN] else []
    said = " and ".join(parts)
    models = f"{len(rows)} model{'s' * (len(rows) != 1)}"
    return f"of {models} with at least {SAVING - 1:.0%} fewer MACs {said}" if rows else ""
