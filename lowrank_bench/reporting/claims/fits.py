"""How well a layer was fitted, and what that costs in accuracy: one experiment's models, ranks by method."""

from __future__ import annotations

from collections.abc import Sequence

from lowrank_bench.reporting.boards.cells import interval_text
from lowrank_bench.reporting.claims.estimates import Candidate
from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.paper import Check
from lowrank_bench.reporting.frame.pooling import as_made
from lowrank_bench.reporting.markdown import markdown_table
from lowrank_bench.trial import CONTROL, Trial


def fits_table(evidence: Evidence, trials: Sequence[Trial], layer: str) -> str:
    """A row for every target, a column for every method and its options: the relative error of the layer and the points
    of top-1 lost, with their 95 % interval. Empty where nothing was fitted.
    """
    rows = as_made(evidence.rows(trials)).drop_duplicates("trial")
    rows = rows[rows["method"] != CONTROL]
    error, loss = Check(metric="weight_error", layer=layer), Check(metric="loss")
    cells: dict[str, dict[str, str]] = {}
    for (target, method, options), group in rows.groupby(["target", "method", "options"], sort=False):
        candidate = Candidate(group, group[:0], None)
        found, lost = evidence.estimates.of(error, candidate), evidence.estimates.of(loss, candidate)
        if found is not None:
            points = f" ({interval_text(*lost, '+.2f')})" if lost is not None else ""
            cells.setdefault(str(target), {})[f"{method} {options}".strip()] = f"{found.value:.3f}{points}"
    if not cells:
        return ""
    targets = [target for trial in trials if (target := trial.target) in cells]
    methods = list(dict.fromkeys(name for row in cells.values() for name in row))
    told = f"Relative error of {layer}, and in brackets the points of top-1 lost [95 %]:"
    table = [[target, *(cells[target].get(name, "") for name in methods)] for target in dict.fromkeys(targets)]
    return f"{told}\n\n{markdown_table(['Target', *methods], table)}"
