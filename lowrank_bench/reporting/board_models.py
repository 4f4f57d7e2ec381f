"""The models of a board, by what made them."""

from __future__ import annotations

from collections.abc import Mapping

from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.board import Board

What = tuple[str, str, str]
"""Method, options and target."""


def models_of(board: Board, trials: Mapping[str, TrialRecord]) -> dict[What, list[TrialRecord]]:
    """The trials of a board that gave a model, by method, options and target; the lowest seed first."""
    known = board.records[["method", "options", "target", "trial"]].itertuples(index=False, name=None)
    found: dict[What, list[TrialRecord]] = {}
    for method, options, target, key in sorted(set(known)):
        if key in trials and trials[key].size is not None:
            found.setdefault((method, options, target), []).append(trials[key])
    return {what: sorted(records, key=lambda record: record.trial.seed) for what, records in found.items()}
