"""What the records say, in sum: which method wins where, how sure that is, what MACs promise and CPUs deliver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from lowrank_bench.reporting.boards.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.boards.cells import (
    interval_text,
    loss_text,
    method_text,
    points_text,
    practical_text,
    workload_text,
)
from lowrank_bench.reporting.boards.choice import free_choice, how_sure, keeping, winner, workloads
from lowrank_bench.reporting.boards.control_rows import controls_grid, fall_short
from lowrank_bench.reporting.boards.machines import machines_grid
from lowrank_bench.reporting.boards.promises import promises
from lowrank_bench.reporting.boards.tables import environment_facts
from lowrank_bench.reporting.claims.claim_counts import claim_counts
from lowrank_bench.reporting.claims.reproduction import Reproduced
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table

_WINNERS = [
    "Where", "Fastest", "In", "Practical speedup [95 %]", "Loss, points [95 %]", "Next method", "In",
    "Lead over the next [least, most]", "Best of", "How sure",
]  # fmt: skip
_ALONE = [
    "Where", "Network", "Fastest", "In", "Practical speedup [95 %]", "Loss, points [95 %]", "Best of", "How sure",
]  # fmt: skip


def findings_markdown(boards: Sequence[Board], papers: Sequence[Reproduced]) -> str:
    """The page of findings, in markdown."""
    told = dict.fromkeys(fact for board in boards for fact in environment_facts(board))
    sections = [
        "# Findings",
        "Made from the records. Speedups and losses have 95 % intervals; shares of the MACs ratio follow from the "
        "speedups, whose intervals are on the leaderboard.",
        bullets([*told]),
    ]
    if winners := _winners(boards):
        sections += [
            "## Which method wins, and by how much",
            "By practical speedup: the dense model's time in its fastest runtime in float32 over the compressed one's "
            "in its own, of the runtimes that were timed. The largest lower end of its interval wins. Each table has "
            "one recipe: over all of them the board of a README may name a faster model, and the leaderboard names the "
            "fastest within each runtime.",
            "Best of: so many models of all methods compete there, each in its fastest runtime. The winner is picked "
            "by the same numbers that are shown, with no correction for that, so they flatter it.",
            "Lead [least, most]: what the ends of the two intervals allow. It is not a 95 % interval.",
            "Sure at 95 %: no other method's interval reaches the winner's, each widened by its noise floor; the "
            "interval of its loss stays within the limit; several seeds; its processes agree. Where no loss is known, "
            "this concerns the time alone.",
            *winners,
        ]
    if delivered := promises(boards):
        sections += [
            "## What MACs promise, and what the CPU delivers",
            "Realised: speedup over the ratio of MACs; 100 % is what counting MACs predicts. Not faster: models with "
            "at least 5 % fewer MACs whose speedup the noise does not tell from 1, or that are slower.",
            *delivered,
        ]
    if (carried := machines_grid(boards)).cells:
        sections += [
            "## What carries over to another machine",
            "Models that were timed in the same setting on two machines; beyond both intervals: their speedups differ. "
            "Of their pairs those are counted whose intervals lie apart on both; in reverse: the faster model on the "
            "first machine is the slower one on the second. Every interval is widened by its noise floor.",
            markdown_table(*carried),
        ]
    if (held := controls_grid(boards)).cells:
        sections += [
            "## How often the clock is right where the truth is known",
            "A/A rows: the dense model against its own copy, timed as every other row, in several processes. Of their "
            '95 % intervals 19 of 20 should hold 1; no verdict but "same" is true.',
            markdown_table(*held),
        ]
        if short := fall_short(boards):
            sections.append(
                f"On {' and '.join(short)} fewer hold 1 than chance explains: speedups there are less sure than their "
                "intervals say, and differences no larger than the noise floor are none."
            )
    if claims := claim_counts(papers):
        sections += ["## Which claims hold on a CPU of today", *claims]
    return "\n\n".join(sections) + "\n"


def _winners(boards: Sequence[Board]) -> list[str]:
    """At each loss, or at each target where nothing is scored, the fastest method beside the next one; then in one
    table those that no other method competes with.
    """
    tables, alone = [], []
    for board in boards:
        for workload in workloads(board):
            place = f"{board.name}, {workload_text(*workload)}"
            rows = free_choice(board, *workload)
            duels = []
            for where, some, limit in _fields(board.scored, rows):
                if (best := winner(some)) is None:
                    continue
                certain = [str(len(some)), how_sure(best, some if limit is None else rows, limit)]
                if others := [row for row in rows_of(some) if row.method != best.method]:
                    duels.append([where, *_duel(best, others[0], limit), *certain])
                else:
                    alone.append([where, place, *_told(best, limit), *certain])
            if duels:
                tables.append(f"**{escape(place)}**\n\n{markdown_table(_WINNERS, duels)}")
    if alone:
        tables.append(f"**Where a single method competes**\n\n{markdown_table(_ALONE, alone)}")
    return tables


def _fields(scored: bool, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, float | None]]:
    if scored:
        for limit in THRESHOLDS:
            yield f"losing at most {points_text(limit)}", keeping(rows, limit), limit
    else:
        for target, some in keeping(rows, None).groupby("target"):
            yield f"at {target}", some, None


def _duel(best: Row, second: Row, limit: float | None) -> list[str]:
    """The winner beside the next method; in one runtime their speedups are compared, which share its dense model."""
    name = "speedup" if best.runtime == second.runtime else "practical"
    (ratio, low, high), (other, least, most) = (
        [getattr(row, f"{name}{end}") for end in ("", "_low", "_high")] for row in (best, second)
    )
    lead = ratio / other, low / most, high / least
    return [*_told(best, limit), _name(second, limit), second.runtime, interval_text(*lead, ".2f")]


def _told(best: Row, limit: float | None) -> list[str]:
    return [_name(best, limit), best.runtime, practical_text(best), loss_text(best)]


def _name(row: Row, limit: float | None) -> str:
    """The model; without a limit its field is of one target, which is not named again."""
    return method_text(row) if limit is None else f"{method_text(row)} {row.target}"
