"""What became of the papers' claims, in numbers, and those that are not confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from lowrank_bench.reporting.markdown import markdown_table
from lowrank_bench.reporting.reproduction import Reproduced
from lowrank_bench.reporting.verdicts import Outcome, Verdict

_UNMET: Verdict = "not confirmed"
_REFUSED = ["Paper", "Claim", "Judged by", "Here [95 %]", "Verdict"]


def claim_counts(papers: Sequence[Reproduced]) -> list[str]:
    """The verdicts counted by paper, then the claims that are not confirmed; nothing where nothing was measured."""
    if not any(done.measured for done in papers):
        return []
    verdicts = get_args(Verdict)
    counted = [(done.paper.name, Counter(outcome.verdict for outcome in done.outcomes)) for done in papers]
    counted.append(("all", sum((counts for _, counts in counted), Counter())))
    rows = [[name, str(counts.total()), *(str(counts[v]) for v in verdicts)] for name, counts in counted]
    sections = [
        "Counted once for each machine that a claim was judged on; claim by claim, with what differs from the paper: "
        "[reproduction.md](reproduction.md).",
        markdown_table(["Paper", "Claims", *(verdict.capitalize() for verdict in verdicts)], rows),
    ]
    refused = [_refused(done, some) for done in papers for some in done.outcomes if some.verdict == _UNMET]
    return [*sections, "Not confirmed:", markdown_table(_REFUSED, refused)] if refused else sections


def _refused(done: Reproduced, outcome: Outcome) -> list[str]:
    where = ", ".join(filter(None, (done.paper.name, outcome.machine)))
    return [where, outcome.claim.claim, outcome.judged_by, outcome.numbers, outcome.told]
