"""The README's board: which model to take, of each network the table that says so, and one of those timed alone."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import THRESHOLDS, Board, Row, allowed, rows_of
from lowrank_bench.reporting.boards.cells import (
    loss_text,
    method_text,
    points_text,
    practical_text,
    seeds_of,
    signed,
    with_unstable,
    workload_text,
)
from lowrank_bench.reporting.boards.choice import (
    Timed,
    by_practical,
    chosen_text,
    fastest_of,
    in_float32,
    practical_verdict,
    timed_in,
    workloads,
)
from lowrank_bench.reporting.boards.decisions import (
    DECISIONS_LEGEND,
    DECISIONS_TITLE,
    all_recipes,
    by_network,
    chosen,
    decisions_grid,
    fastest_at,
    fullest,
    of_one_machine,
    what_is_missing,
    with_choice,
)
from lowrank_bench.reporting.boards.networks_table import networks_tables
from lowrank_bench.reporting.boards.spans import SPANS_LEGEND, SPANS_TITLE, spans_grid, without_gain
from lowrank_bench.reporting.boards.tables import environment_facts, own_facts
from lowrank_bench.reporting.frame.columns import WHAT
from lowrank_bench.reporting.markdown import bullets, escape, folded, markdown_table, told_line
from lowrank_bench.trial import CONTROL

_HEADINGS = [
    "Method", "Target", "Practical [95 %]", "In", "Verdict", "Loss, points [95 %]", "Seeds", "MACs ratio",
    "Params ratio",
]  # fmt: skip


def summary_board(boards: Sequence[Board], whole: str = "leaderboard.md") -> str:
    """The README's board, of the records' boards, in markdown, ``whole`` being the address of the whole one: what fewer
    MACs become, least and most; which model to take at which loss, whatever the recipe, and what is missing; then of
    each method at each budget the variant of the largest practical speedup that keeps within the loss, at the
    headline's threads and batch, and the default one beside it, with the dense model in fewer bits where that was
    timed; what loses more than 2 points, or nobody knows how much, is named below. A network's board is the one of the
    machine and the recipe of most models; its others are named, and a board of one method alone is a line. The networks
    of which the time alone is known share a table for each machine and number of threads. All but the two first tables
    open by a click.
    """
    boards = with_choice(boards)
    parts = []
    if (spans := spans_grid(boards)).cells:
        parts += [f"**{SPANS_TITLE}**, {SPANS_LEGEND}", markdown_table(*spans)]
    parts.append(bullets(without_gain(boards)))
    if (decided := decisions_grid(boards)).cells:
        parts += [f"**{DECISIONS_TITLE}**, {DECISIONS_LEGEND}", markdown_table(*decided)]
    parts.append(escape(what_is_missing(boards)))
    networks = by_network(boards)
    full = [some for some in networks if _methods(fullest(some)) > 1]
    parts += map(_network, full)
    parts += [_one_method(fullest(some), whole) for some in networks if some not in full]
    parts += networks_tables([board for board in boards if not board.scored])
    return "\n\n".join([*filter(None, parts), _machines(boards)])


def _methods(board: Board) -> int:
    return len(set(chosen(board)["method"]) - {CONTROL})


def _network(boards: Sequence[Board]) -> str:
    """A network's board of most models, with whatever won at a loss, other recipes' models too."""
    recipes = of_one_machine(boards)
    board = recipes[0]
    rows = chosen(board)
    fit = (rows["method"] == CONTROL) | (rows["top1_drop"] <= allowed(THRESHOLDS[-1]))
    fitting_first = pd.concat([rows[fit], rows[~fit]])
    shown = rows[~fitting_first.duplicated(["method", "target"])[rows.index] | (rows["options"] == "")]
    named = pd.DataFrame(fastest_at(all_recipes(recipes)).values(), columns=shown.columns).astype(shown.dtypes)
    shown = by_practical(pd.concat([shown, named]).drop_duplicates(["recipe", *WHAT]))
    control = shown["method"] == CONTROL
    kept = ~control & (shown["top1_drop"] <= allowed(THRESHOLDS[-1]))
    listed = pd.concat([shown[kept], shown[control], *map(_in_fewer_bits, recipes)])
    timed = {recipe.recipe: timed_in(in_float32(recipe, *workloads(board)[0])) for recipe in recipes}
    runtimes = {name for names in timed[board.recipe].values() for name in names}
    told = own_facts(board)
    told.append(("Noise floor, median of these rows", f"{shown['noise_floor'].median():.1%}"))
    others = {
        "recipes": dict.fromkeys(other.recipe for other in recipes[1:]),
        "machines": dict.fromkeys(other.machine for other in boards if other.machine != board.machine),
    }
    told += [(f"Other {kind}, on the whole board", ", ".join(names)) for kind, names in others.items() if names]
    setting = f"{workload_text(*workloads(board)[0])}, {fastest_of(runtimes)}"
    cells = [_cells(row, timed[row.recipe], len(runtimes), board.recipe) for row in rows_of(listed)]
    table = markdown_table(_HEADINGS, cells)
    lost, unknown = (shown[~kept & ~control & (shown["top1_drop"].isna() == without)] for without in (False, True))
    return folded(board.name, setting, table, _lost_more(lost), _not_known(unknown), told_line(told))


def _in_fewer_bits(board: Board) -> pd.DataFrame:
    """The dense model in bfloat16 and int8, each in its fastest runtime: what a user would do instead."""
    rows = board.rows
    threads, batch = workloads(board)[0]
    dense = (rows["method"] == CONTROL) & (rows["threads"] == threads) & (rows["batch"] == batch)
    return rows[dense & (rows["arithmetic"] != "float32") & (rows["runtime"] == rows["practical_runtime"])]


def _lost_more(rows: pd.DataFrame) -> str:
    """What loses too much for the table, in a line."""
    named = [
        f"{method_text(row)} {row.target} ({row.practical:.2f}, {signed(row.top1_drop, '+.1f')})"
        for row in rows_of(rows)
    ]
    limit = points_text(THRESHOLDS[-1])
    return escape(f"Losing more than {limit} (practical speedup, points): {', '.join(named)}") if named else ""


def _not_known(rows: pd.DataFrame) -> str:
    """What has no loss, in a line."""
    named = [f"{method_text(row)} {row.target} ({row.practical:.2f})" for row in rows_of(rows)]
    said = f"Loss not known (no dense control), practical speedup: {', '.join(named)}"
    return escape(said) if named else ""


def _one_method(board: Board, whole: str) -> str:
    """A board of one method alone, or of none, in a line."""
    rows = chosen(board)
    rows = rows[rows["method"] != CONTROL]
    timed = timed_in(in_float32(board, *workloads(board)[0]))
    models = [
        f"{method_text(row)} {row.target}: practical speedup {practical_text(row)} in {chosen_text(row, timed, 2)}, "
        f"{loss_text(row) + ' points lost' if loss_text(row) else 'loss not known (no dense control)'}"
        for row in rows_of(rows)
    ]
    said = "; ".join(models) or "the dense control alone"
    return f"**{escape(board.name)}**, {escape(said)} ([the whole board]({whole}))"


def _machines(boards: Sequence[Board]) -> str:
    """Machines and environments, once for all tables."""
    told: dict[str, dict[str, None]] = {}
    for board in boards:
        told.setdefault(board.machine, {}).update(dict.fromkeys(text for _, text in environment_facts(board)[1:]))
    return bullets([(machine, " / ".join(texts)) for machine, texts in sorted(told.items())])


def _cells(row: Row, timed: Timed, most: int, recipe: str) -> list[str]:
    exact = row.arithmetic == "float32"
    control = " (A/A control)" if exact else f" (dense, {row.arithmetic})"
    return [
        method_text(row) + (control if row.method == CONTROL else ""),
        row.target + ("" if row.recipe == recipe else f", recipe {row.recipe}"),
        practical_text(row),
        chosen_text(row, timed, most) if exact else row.runtime,
        with_unstable(practical_verdict(row), row.unstable),
        loss_text(row),
        str(seeds_of(row)),
        f"{row.macs_ratio:.2f}",
        f"{row.params_ratio:.2f}",
    ]
