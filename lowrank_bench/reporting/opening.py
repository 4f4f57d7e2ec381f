"""What a reader sees first: what fewer MACs become, which model to take, how sure that is, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from lowrank_bench.record import Status
from lowrank_bench.reporting.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.cells import loss_text, method_text, points_text, practical_text, where_text, workload_text
from lowrank_bench.reporting.choice import (
    NOT_KNOWN,
    by_practical,
    free_choice,
    how_sure,
    keeping,
    practical_verdict,
    reserve,
    shared_workloads,
    winner,
    workloads,
)
from lowrank_bench.reporting.columns import What, what_of
from lowrank_bench.reporting.promises import SAVING
from lowrank_bench.reporting.tables import Grid
from lowrank_bench.trial import CONTROL

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
DECISIONS_TITLE = "Which model to take"
DECISIONS_LEGEND = (
    "whatever the recipe: the largest practical speedup (dense and compressed model each in its fastest runtime) at "
    "the headline's threads and batch, by the lower end of its interval"
)
NO_LOSS = "no loss is known: no dense control"
_DECISIONS_HEADINGS = [
    "Network", "Setting", "Losing at most", "Fastest", "In", "Practical [95 %]", "Loss, points [95 %]", "How sure",
]  # fmt: skip


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
