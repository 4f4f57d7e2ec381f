"""What the records say, in sum: which method wins where, how sure that is, what MACs promise and CPUs deliver."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pandas as pd

from lowrank_bench.reporting.board import THRESHOLDS, Board, rows_of
from lowrank_bench.reporting.cells import (
    interval_text,
    loss_text,
    method_text,
    points_text,
    practical_text,
    setting_text,
    workload_text,
)
from lowrank_bench.reporting.choice import by_practical, free_choice, how_sure, keeping, winner, workloads
from lowrank_bench.reporting.control_rows import controls_grid
from lowrank_bench.reporting.machines import machines_grid
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.reporting.reproduction import Reproduced
from lowrank_bench.reporting.tables import environment_facts
from lowrank_bench.trial import CONTROL

_WINNERS = [
    "Where", "Fastest", "In", "Practical speedup [95 %]", "Loss, points [95 %]", "Next method", "In",
    "Lead over the next [least, most]", "How sure",
]  # fmt: skip
_PROMISES = ["Method", "Setting", "Models", "Median realised", "Range", "Not faster"]
_SAVING = 1.05
"""A ratio of MACs from which on a model promises to be faster."""


def findings_markdown(boards: Sequence[Board], papers: Sequence[Reproduced]) -> str:
    """The page of findings, in markdown."""
    told = dict.fromkeys(fact for board in boards for fact in environment_facts(board))
    sections = [
        "# Findings",
        "Made from the records. Speedups and losses have 95 % intervals; shares of the MACs ratio follow from the "
        "speedups, whose intervals are on the leaderboard.",
        bullets([*told]),
    ]
    if winners := [section for board in boards if (section := _winners(board))]:
        sections += [
            "## Which method wins, and by how much",
            "By practical speedup, the dense model in its fastest runtime in float32 over the compressed one in its "
            "own; the lower end of its interval decides. Sure at 95 %: no other method's interval reaches the "
            "winner's, that of the loss keeps to the limit, over more than one seed, and processes agree. Where no "
            "loss is known, this is said of the time alone.",
            *winners,
        ]
    if promises := [section for board in boards if (section := _promises(board))]:
        sections += [
            "## What MACs promise, and what the CPU delivers",
            "Realised: speedup over the ratio of MACs; 100 % is what counting MACs predicts. Not faster: models with "
            "at least 5 % fewer MACs whose speedup the noise does not tell from 1, or that are slower.",
            *promises,
        ]
    if (carried := machines_grid(boards)).cells:
        sections += [
            "## What carries over to another machine",
            "Models that were timed in the same setting on two machines; beyond both intervals: their speedups differ. "
            "Of their pairs those are counted whose intervals lie apart on both; in reverse: the faster model on the "
            "first machine is the slower one on the second.",
            markdown_table(*carried),
        ]
    if (held := controls_grid(boards)).cells:
        sections += [
            "## How often the clock is right where the truth is known",
            "A/A rows: the dense model against its own copy, timed as every other row, in several processes. Of their "
            '95 % intervals 19 of 20 should hold 1; no verdict but "same" is true.',
            markdown_table(*held),
        ]
    if claims := _claims(papers):
        sections += ["## Which claims hold on a CPU of today", claims]
    return "\n\n".join(sections) + "\n"


def answers(recipes: Collection[Board]) -> list[tuple[str, str]]:
    """Of a network's boards with accuracies, one for each recipe, at the headline's threads and batch: which model is
    the fastest at each loss, by how much, what it loses, and how sure that is.
    """
    chosen = by_practical(pd.concat([free_choice(board, *workloads(board)[0]) for board in recipes]))
    found = []
    for where, rows, limit in _fields(scored=True, rows=chosen):
        if best := winner(rows):
            what = f"{method_text(best)} {best.target} in {best.runtime}"
            tuned = f" after recipe {best.recipe}" if len(recipes) > 1 else ""
            text = (
                f"{what}, practical speedup {practical_text(best)}, {loss_text(best)} points lost{tuned}; "
                f"{how_sure(best, rows, limit)}"
            )
            found.append((f"Fastest {where}", text))
    return found


def _winners(board: Board) -> str:
    """At each loss, or at each target where nothing is scored, the fastest method beside the next one."""
    tables = []
    for workload in workloads(board):
        rows = free_choice(board, *workload)
        duels = [_duel(where, some, limit) for where, some, limit in _fields(board.scored, rows)]
        if found := [duel for duel in duels if duel]:
            title = f"**{escape(board.name)}**, {workload_text(*workload)}"
            tables.append(f"{title}\n\n{markdown_table(_WINNERS, found)}")
    return "\n\n".join(tables)


def _fields(scored: bool, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, float | None]]:
    if scored:
        for limit in THRESHOLDS:
            yield f"losing at most {points_text(limit)}", keeping(rows, limit), limit
    else:
        for target, some in keeping(rows, None).groupby("target"):
            yield f"at {target}", some, None


def _duel(where: str, rows: pd.DataFrame, limit: float | None) -> list[str]:
    """The winner beside the next method; empty where nothing gains."""
    best = winner(rows)
    if best is None:
        return []
    others = [row for row in rows_of(rows) if row.method != best.method]
    cells = [where, f"{method_text(best)} {best.target}", best.runtime, practical_text(best), loss_text(best)]
    sure = how_sure(best, rows, limit)
    if not others:
        return [*cells, "none", "", "", sure]
    second = others[0]
    lead = (
        best.practical / second.practical,
        best.practical_low / second.practical_high,
        best.practical_high / second.practical_low,
    )
    return [*cells, f"{method_text(second)} {second.target}", second.runtime, interval_text(*lead, ".2f"), sure]


def _promises(board: Board) -> str:
    """In the headline setting method by method, in the others all methods together."""
    rows = board.rows
    saving = (rows["method"] != CONTROL) & (rows["macs_ratio"] >= _SAVING) & (rows["arithmetic"] == "float32")
    table = []
    for place, setting in enumerate(board.settings):
        here = board.in_setting(setting)
        here = here[saving[here.index]]
        groups = [("all", here)]
        if place == 0:
            groups += [(str(method), group) for method, group in here.groupby("method")]
        table += [_delivered(method, setting, group) for method, group in groups if len(group)]
    return f"**{escape(board.name)}**\n\n{markdown_table(_PROMISES, table)}" if table else ""


def _delivered(method: str, setting: tuple[str, int, int], rows: pd.DataFrame) -> list[str]:
    realised = rows["realised"]
    return [
        method,
        setting_text(*setting),
        str(len(rows)),
        f"{realised.median():.0%}",
        f"{realised.min():.0%} to {realised.max():.0%}",
        str(int((rows["verdict"] != "faster").sum())),
    ]


def _claims(papers: Sequence[Reproduced]) -> str:
    """Those that were measured."""
    return bullets(
        [
            (
                ", ".join(filter(None, (done.paper.name, outcome.claim.claim, outcome.machine))),
                f"{outcome.verdict}{outcome.detail} ({outcome.here})",
            )
            for done in papers
            for outcome in done.measured
        ]
    )
