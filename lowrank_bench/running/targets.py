"""Targets of a sweep that no layer, or no machine, could meet: named before any work is done."""

from __future__ import annotations

from collections.abc import Iterable

from lowrank_bench.compression.ranks import RULES, rank_rule
from lowrank_bench.errors import InvalidSweep, UnknownName
from lowrank_bench.measurement.runtimes import RUNTIMES
from lowrank_bench.trial import Budget, NetworkRanks


def check_ranks(ranks: NetworkRanks) -> None:
    """Raise what no layer could take: InvalidSweep for a number below 1, InvalidRanks for a rule that there is not."""
    for rule in ranks.values() if isinstance(ranks, dict) else [ranks]:
        if isinstance(rule, str):
            if rule != "full":
                rank_rule(rule, "sweep.ranks")
        elif min((rule,) if isinstance(rule, int) else rule, default=0) < 1:
            raise InvalidSweep(f"sweep.ranks = {ranks}: ranks of at least 1, or {RULES}, are wanted")


def check_latency(budgets: Iterable[Budget], cores: int) -> None:
    """Raise UnknownName or InvalidSweep for a budget whose setting cannot be timed on a machine of so many cores."""
    for budget in budgets:
        if budget.runtime is not None and budget.runtime not in RUNTIMES:
            raise UnknownName("runtime", budget.runtime, RUNTIMES)
        if (budget.threads or 1) > cores:
            raise InvalidSweep(f"sweep.budgets: {budget}: this machine has {cores} cores; use at most that")
