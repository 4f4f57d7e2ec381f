"""Which model to take at which loss, how sure that is, and what is missing to say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import loss_text, method_text, points_text, practical_text, workload_text
from lowrank_bench.reporting.boards.choice import (
    NOT_KNOWN,
    by_practical,
    free_choice,
    how_sure,
    keeping,
    practical_verdict,
    winner,
    workloads,
)
from lowrank_bench.reporting.boards.tables import Grid
from lowrank_bench.trial import CONTROL

DECISIONS_TITLE = "Which model to take"
DECISIONS_LEGEND = (
    "whatever the recipe: the largest practical speedup (dense and compressed model each in its fastest runtime) at "
    "the headline's threads and batch, by the lower end of its interval"
)
NO_LOSS = "no loss is known: no dense control"
_DECISIONS_HEADINGS = [
    "Network", "Setting", "Losing at most", "Fastest", "In", "Practical [95 %]", "Loss, points [95 %]", "How sure",
]  # fmt: skip


def decisions_grid(boards: Sequence[Board]) -> Grid:
    """A line for each loss at which anything gains on a network with accuracies, which the first of its lines names,
    neighbours that say the same in one; one that says so where nothing does. A network's machine is that of its board
    of most models.
    """
    return Grid(_DECISIONS_HEADINGS, [cells for some in by_network(boards) for cells in _decided(of_one_machine(some))])


def what_is_missing(boards: Sequence[Board]) -> str:
    """A sentence on what these boards do not say: losses, further seeds and methods, the dense model in fewer bits;
    empty where nothing lacks.
    """
    scored = {some[0].network: some for some in by_network(boards)}
    rows = {name: pd.concat([board.rows for board in some]) for name, some in scored.items()}
    models = {name: some[some["method"] != CONTROL] for name, some in rows.items()}
    missing = {
        "the loss of {}, compared by time alone": [*{board.model for board in boards if board.network not in scored}],
        "the loss of {}, which has no dense control": [
            name for name, some in models.items() if some["top1_drop"].isna().any()
        ],
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


def with_choice(boards: Sequence[Board]) -> list[Board]:
    """Those on which there is a model to choose."""
    return [board for board in boards if not (board.rows.empty or chosen(board).empty)]


def by_network(boards: Sequence[Board]) -> list[list[Board]]:
    """The boards with accuracies, of each network on its own."""
    networks: dict[tuple[str, str], list[Board]] = {}
    for board in boards:
        if board.scored:
            networks.setdefault((board.task, board.model), []).append(board)
    return [*networks.values()]


def chosen(board: Board) -> pd.DataFrame:
    """Each model in its fastest runtime, at the headline's threads and batch."""
    return free_choice(board, *workloads(board)[0])


def fullest(boards: Sequence[Board]) -> Board:
    """The board of most models."""
    return max(boards, key=lambda board: len(chosen(board)))


def of_one_machine(boards: Sequence[Board]) -> list[Board]:
    """The board of most models, then those of other recipes on its machine."""
    first = fullest(boards)
    return [first, *(board for board in boards if board.machine == first.machine and board is not first)]


def all_recipes(boards: Sequence[Board]) -> pd.DataFrame:
    """Of a network's boards on one machine, one for each recipe, every model in its fastest runtime, at the threads and
    batch of the first one's headline.
    """
    workload = workloads(boards[0])[0]
    return by_practical(pd.concat([free_choice(board, *workload) for board in boards]))


def fastest_at(rows: pd.DataFrame) -> Mapping[float, Row]:
    """Of ``all_recipes``'s rows the fastest at each loss at which anything is faster than the dense model."""
    found = {limit: winner(keeping(rows, limit)) for limit in THRESHOLDS}
    return {limit: row for limit, row in found.items() if row is not None}


def _decided(boards: Sequence[Board]) -> list[list[str]]:
    first = boards[0]
    rows = all_recipes(boards)
    where = [first.network, f"{workload_text(*workloads(first)[0])}, {first.machine}"]
    told: list[tuple[list[str], list[float]]] = []
    for limit, best in fastest_at(rows).items():
        tuned = f", recipe {best.recipe}" if len(boards) > 1 else ""
        said = [
            f"{method_text(best)} {best.target}{tuned}",
            best.runtime,
            practical_text(best),
            loss_text(best),
            how_sure(best, rows, limit),
        ]
        if told and told[-1][0] == said:
            told[-1][1].append(limit)
        else:
            told.append((said, [limit]))
    lines = [[*where, _losses(limits), *said] for said, limits in told]
    lines[1:] = [[*([""] * len(where)), *line[len(where) :]] for line in lines[1:]]
    if lines:
        return lines
    if keeping(rows, None)["top1_drop"].isna().all():
        return [[*where, "", "none", "", "", "", NO_LOSS]]
    return [[*where, points_text(THRESHOLDS[-1]), "none", "", "", "", none_faster(keeping(rows, THRESHOLDS[-1]))]]


def none_faster(kept: pd.DataFrame) -> str:
    """Why none of the models that lose no more than asked has won."""
    if any(practical_verdict(row) == NOT_KNOWN for row in rows_of(kept)):
        return "what loses so little was timed in other hours than the dense network: whether it is faster is not known"
    return "nothing timed that is faster loses so little"


def _losses(limits: Sequence[float]) -> str:
    """Such as ``0.5 to 2 points``."""
    return " to ".join([*(f"{limit:g}" for limit in limits[:-1][:1]), points_text(limits[-1])])
