"""What the records say, in sum: which method wins where, how sure that is, what MACs promise and CPUs deliver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from lowrank_bench.reporting.board import THRESHOLDS, Board, Row, rows_of
from lowrank_bench.reporting.cells import interval_text, loss_text, method_text, setting_text, speedup_text
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.reporting.reproduction import Reproduced
from lowrank_bench.trial import CONTROL

_WINNERS = ["Where", "Fastest", "Speedup [95 %]", "Loss, points [95 %]", "Next method", "Lead [95 %]", "How sure"]
_PROMISES = ["Method", "Setting", "Models", "Median realised", "Range", "Not faster"]
_SAVING = 1.05
"""A ratio of MACs from which on a model promises to be faster."""


def findings_markdown(boards: Sequence[Board], papers: Sequence[Reproduced]) -> str:
    """The page of findings, in markdown."""
    sections = ["# Findings", "Made from the records; every number has its interval on the leaderboard."]
    if winners := [section for board in boards if (section := _winners(board))]:
        sections += ["## Which method wins, and by how much", *winners]
    if promises := [section for board in boards if (section := _promises(board))]:
        sections += [
            "## What MACs promise, and what the CPU delivers",
            "Realised: speedup over the ratio of MACs; 100 % is what counting MACs predicts. Not faster: models with "
            "at least 5 % fewer MACs whose speedup the noise does not tell from 1, or that are slower.",
            *promises,
        ]
    if claims := _claims(papers):
        sections += ["## Which claims hold on this CPU", claims]
    return "\n\n".join(sections) + "\n"


def _winners(board: Board) -> str:
    """At each loss, or at each target where nothing is scored, the fastest method beside the next one."""
    if board.rows.empty:
        return ""
    setting = board.settings[0]
    rows = board.in_setting(setting)
    rows = rows[(rows["method"] != CONTROL) & (rows["verdict"] == "faster")]
    table = [_duel(where, some, limit) for where, some, limit in _fields(board, rows) if len(some)]
    if not table:
        return ""
    return f"**{escape(board.name)}**, {escape(setting_text(*setting))}\n\n{markdown_table(_WINNERS, table)}"


def _fields(board: Board, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, float | None]]:
    if board.scored:
        for limit in THRESHOLDS:
            yield f"losing at most {limit:g} points", rows[rows["top1_drop"] <= limit + 1e-9], limit
    else:
        for target, some in rows.groupby("target"):
            yield str(target), some, None


def _duel(where: str, rows: pd.DataFrame, limit: float | None) -> list[str]:
    ordered = sorted(rows_of(rows), key=lambda row: -row.speedup_low)
    best = ordered[0]
    second = next((row for row in ordered if row.method != best.method), None)
    cells = [where, f"{method_text(best)} {best.target}", speedup_text(best), loss_text(best)]
    if second is None:
        return [*cells, "none", "", _sure(best, None, limit)]
    lead = best.speedup / second.speedup, best.speedup_low / second.speedup_high, best.speedup_high / second.speedup_low
    return [*cells, f"{method_text(second)} {second.target}", interval_text(*lead, ".2f"), _sure(best, lead[1], limit)]


def _sure(best: Row, lead_low: float | None, limit: float | None) -> str:
    """Whether the intervals of both speedups lie apart, and whether that of the loss keeps to the limit."""
    doubts = []
    if lead_low is not None and lead_low <= 1:
        doubts.append("the next may be as fast")
    if limit is not None and best.top1_drop_high > limit:
        doubts.append("the loss may be larger")
    return "; ".join(doubts) or "sure at 95 %"


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
            (f"{done.paper.name}, {outcome.claim.claim}", f"{outcome.verdict}{outcome.detail} ({outcome.here})")
            for done in papers
            for outcome in done.measured
        ]
    )
