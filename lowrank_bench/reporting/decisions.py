"""Which model to take: of each network the fastest that loses at most so much, how sure that is; what is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from lowrank_bench.reporting.board import THRESHOLDS, Board, Row
from lowrank_bench.reporting.cells import loss_text, method_text, points_text, practical_text, workload_text
from lowrank_bench.reporting.choice import by_practical, free_choice, how_sure, keeping, winner, workloads
from lowrank_bench.reporting.tables import Grid
from lowrank_bench.trial import CONTROL

_HEADINGS = [
    "Network", "Setting", "Losing at most", "Fastest", "In", "Practical [95 %]", "Loss, points [95 %]", "How sure",
]  # fmt: skip


def all_recipes(boards: Collection[Board]) -> pd.DataFrame:
    """Of a network's boards on one machine, one for each recipe, every model in its fastest runtime, at the headline's
    threads and batch.
    """
    return by_practical(pd.concat([free_choice(board, *workloads(board)[0]) for board in boards]))


def fastest_at(rows: pd.DataFrame) -> Mapping[float, Row]:
    """Of ``all_recipes``'s rows the fastest at each loss at which anything is faster than the dense model."""
    found = {limit: winner(keeping(rows, limit)) for limit in THRESHOLDS}
    return {limit: row for limit, row in found.items() if row is not None}


def decisions_grid(networks: Sequence[Collection[Board]]) -> Grid:
    """A line for each loss at which anything gains on a network with accuracies, which the first of its lines names;
    one that says so where nothing does.
    """
    return Grid(_HEADINGS, [cells for boards in networks for cells in _decided(boards)])


def _decided(boards: Collection[Board]) -> list[list[str]]:
    first = next(iter(boards))
    rows = all_recipes(boards)
    where = [first.network, f"{workload_text(*workloads(first)[0])}, {first.machine}"]
    lines: list[list[str]] = []
    for limit, best in fastest_at(rows).items():
        tuned = f", recipe {best.recipe}" if len(boards) > 1 else ""
        lines.append(
            [
                *([""] * len(where) if lines else where),
                points_text(limit),
                f"{method_text(best)} {best.target}{tuned}",
                best.runtime,
                practical_text(best),
                loss_text(best),
                how_sure(best, keeping(rows, limit), limit),
            ]
        )
    nothing = [points_text(THRESHOLDS[-1]), "none", "", "", "", "nothing timed that is faster loses so little"]
    return lines or [where + nothing]


def what_is_missing(boards: Sequence[Board]) -> str:
    """A sentence on what these boards do not say: losses, further seeds and methods, the dense model in fewer bits;
    empty where nothing lacks.
    """
    networks: dict[tuple[str, str], list[Board]] = {}
    for board in boards:
        networks.setdefault((board.task, board.model), []).append(board)
    scored = {where: some for where, some in networks.items() if any(board.scored for board in some)}
    rows = {f"{model} on {task}": pd.concat([b.rows for b in some]) for (task, model), some in scored.items()}
    models = {name: some[some["method"] != CONTROL] for name, some in rows.items()}
    missing = {
        "the loss of {}, compared by time alone": [model for task, model in networks if (task, model) not in scored],
        "more than one seed of {}": [
            name for name, some in models.items() if not some["seeds"].str.contains(",").any()
        ],
        "more than one method on {}": [name for name, some in models.items() if some["method"].nunique() < 2],
        "what fewer bits alone bring {}": [
            name for name, some in rows.items() if (some["arithmetic"] == "float32").all()
        ],
    }
    told = [text.format(", ".join(sorted(names))) for text, names in missing.items() if names]
    return f"Not measured: {'; '.join(told)}." if told else ""
