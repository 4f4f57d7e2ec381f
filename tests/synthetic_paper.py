"""A paper that nobody wrote, with one claim: what the tests of papers and of their verdicts read."""

from __future__ import annotations

from typing import Any

from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.paper import Claim, Paper, parse_paper
from lowrank_bench.reporting.claims.reproduction import reproduced
from lowrank_bench.reporting.claims.verdicts import Outcome

PAPER = """
title = "A paper"
cite = "Somewhere, 2014"
[experiments.net]
[experiments.net.sweep]
task = "chars36"
models = ["charnet"]
methods = ["tucker", "jaderberg", "channel_svd", "cp_nls"]
budgets = [{macs = 4}, {macs = 8}]
seeds = [0, 1]
recipe = "standard"
[experiments.net.measure]
runtimes = ["eager-nhwc", "onnxruntime"]
batches = [64]
processes = 5
seeds = [0]
[experiments.net.quick]
methods = ["tucker"]
[[claims]]
claim = "twice as fast"
paper = "2x"
where = "abstract"
models = {experiment = "net", method = "tucker"}
checks = [{metric = "speedup", at_least = 2.0}]
differs = "the machine"
"""


def paper_of(
    method: str,
    *checks: dict[str, Any],
    target: float | None = 4,
    seeds: tuple[int, ...] = (0,),
    processes: int = 1,
    **claim: Any,
) -> Paper:
    """The paper with one claim, about a method at a ratio of MACs."""
    text = PAPER.replace("seeds = [0, 1]", f"seeds = {[*seeds]}").replace("processes = 5", f"processes = {processes}")
    paper = parse_paper("synthetic", text)
    models = {"experiment": "net", "method": method} | ({"budget": {"macs": target}} if target else {})
    given = paper.claims[0].model_dump() | {"models": models, "checks": list(checks)} | claim
    return paper.model_copy(update={"claims": [Claim.model_validate(given)]})


def outcome(paper: Paper, records: list[Any]) -> Outcome:
    """What came of the only claim on the only machine."""
    (found,) = reproduced(paper, Evidence(records)).outcomes
    return found
