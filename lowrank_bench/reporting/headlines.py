"""The README's first lines: on each machine what 4x fewer MACs become, least and most, and what gains nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lowrank_bench.reporting.board import Board, Row, rows_of
from lowrank_bench.reporting.cells import method_text, practical_text
from lowrank_bench.reporting.choice import free_choice, keeping, practical_verdict, workloads
from lowrank_bench.reporting.markdown import escape
from lowrank_bench.reporting.networks import shared_workload

_SPANS = {"macs/4": "in the whole network", "macs/4 (convs)": "in its convolutions, the rest left as it was"}


def headlines(boards: Sequence[Board]) -> list[str]:
    """A paragraph for each machine, of the practical speedups that the tables below show: budgets of the whole network
    and of its convolutions apart, what is slower or the same counted at every budget.
    """
    paragraphs = []
    for machine in sorted({board.machine for board in boards}):
        rows = [row for board in boards if board.machine == machine for row in _models(board)]
        if rows:
            said = "; ".join(filter(None, (_span(rows, target, where) for target, where in _SPANS.items())))
            opening = f"On {machine}, each model in the fastest runtime that it was timed in: "
            paragraphs.append(
                escape(f"{opening}{said}{'. At' if said else 'at'} any budget and recipe, {_without_gain(rows)}.")
            )
    return paragraphs


def _models(board: Board) -> list[Row]:
    """At the headline's threads and batch, and where that is another, at those of the table that networks share."""
    told = dict.fromkeys([workloads(board)[0], *([] if board.scored else [shared_workload(board)])])
    return [row for workload in told for row in rows_of(keeping(free_choice(board, *workload), None))]


def _span(rows: Sequence[Row], target: str, where: str) -> str:
    some = [row for row in rows if row.target == target]
    if not some:
        return ""
    count = len({(row.task, row.model) for row in some})
    networks = f"{count} network{'s' * (count > 1)}"
    least, most = (_end(pick(some, key=lambda row: row.practical)) for pick in (min, max))
    span = least if len(some) == 1 else f"from {least} to {most}"
    return f"with 4x fewer MACs {where} ({target}, {networks}) {span} times as fast"


def _end(row: Row) -> str:
    judged = practical_verdict(row)
    marks = ["no gain beyond noise"] if judged == "same" else ["slower"] if judged == "slower" else []
    marks += ["unstable"] if row.unstable else []
    what = f"{method_text(row)} on {row.model} in {row.runtime}"
    return f"{practical_text(row)} ({'; '.join([what, *marks])})"


def _without_gain(rows: Sequence[Row]) -> str:
    """Of the models at all budgets, how many are slower than the dense network, and how many no faster."""
    verdicts = [practical_verdict(row) for row in rows]
    slower, same = verdicts.count("slower"), verdicts.count("same")
    parts = [f"{same} with no gain beyond noise"] if same else []
    if slower:
        worst = min(rows, key=lambda row: row.practical)
        what = f"{method_text(worst)} {worst.target} on {worst.model}"
        parts = [f"{slower} slower than the dense one (down to {practical_text(worst)}: {what})", *parts]
    return f"of {len(rows)} models {' and '.join(parts) or 'none'}" + ("" if parts else " without a gain beyond noise")
