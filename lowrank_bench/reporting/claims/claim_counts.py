"""What became of the papers' claims: counted by verdict, then listed with their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from lowrank_bench.reporting.claims.reproduction import Reproduced
from lowrank_bench.reporting.claims.verdicts import Outcome, Verdict
from lowrank_bench.reporting.markdown import markdown_table

_LISTED: tuple[Verdict, ...] = ("confirmed", "not ruled out", "undecided", "not confirmed")
_HEADINGS = ["Paper", "Claim", "Judged by", "Here [95 %]", "Verdict"]


def claim_counts(papers: Sequence[Reproduced]) -> list[str]:
    """The verdicts counted by paper, this suite's own claims apart, then the claims by verdict; nothing where nothing
    was measured.
    """
    if not any(done.measured for done in papers):
        return []
    theirs = [(done.paper.name, [some for some in done.outcomes if not _own(done, some)]) for done in papers]
    counted = [(name, some) for name, some in theirs if some]
    counted.append(("all papers", [outcome for _, some in theirs for outcome in some]))
    if own := [outcome for done in papers for outcome in done.outcomes if _own(done, outcome)]:
        counted.append(("this suite's own", own))
    verdicts = get_args(Verdict)
    rows = [[name, str(len(some)), *(_counted(some, verdict) for verdict in verdicts)] for name, some in counted]
    sections = [
        "Counted once for each machine that a claim was judged on; in brackets, of how many the paper is quoted from "
        "memory. This suite's own are its promises, and a paper's numbers asked of what that paper does not have. "
        "Claim by claim, with what differs from the paper: [reproduction.md](reproduction.md).",
        markdown_table(["Paper", "Claims", *(verdict.capitalize() for verdict in verdicts)], rows),
    ]
    for verdict in _LISTED:
        listed = [_listed(done, some) for done in papers for some in done.outcomes if some.verdict == verdict]
        sections += [f"{verdict.capitalize()}:", markdown_table(_HEADINGS, listed)] if listed else []
    return sections


def _own(done: Reproduced, outcome: Outcome) -> bool:
    return done.paper.ours or outcome.claim.ours


def _counted(outcomes: Sequence[Outcome], verdict: Verdict) -> str:
    """Such as ``3 (1)``."""
    count = Counter(outcome.claim.from_memory for outcome in outcomes if outcome.verdict == verdict)
    return f"{count.total()} ({count[True]})" if count[True] else str(count.total())


def _listed(done: Reproduced, outcome: Outcome) -> list[str]:
    where = ", ".join(filter(None, (done.paper.name, outcome.machine)))
    return [where, outcome.claim.claim, outcome.judged_by, outcome.numbers, outcome.told]
