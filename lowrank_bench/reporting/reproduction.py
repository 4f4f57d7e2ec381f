"""The papers' claims beside what the records say of them: verdicts by rule, and the page that lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

from lowrank_bench.reporting.board import rows_of
from lowrank_bench.reporting.claim_text import candidate_text, condition_text, number_text
from lowrank_bench.reporting.evidence import Candidate, Estimate, Evidence
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.reporting.paper import IN_POINTS, Check, Claim, Paper, Planned
from lowrank_bench.trial import Trial

Verdict = Literal["confirmed", "not ruled out", "not confirmed", "open", "not measured"]

HEADINGS = ["Claim", "Paper", "Judged by", "Here [95 %]", "Verdict", "What differs"]

_MEETS = {
    2: ": the estimate meets it, its whole interval does not",
    1: ": only the better end of the interval meets it",
    0: "",
}
_ENOUGH = 3
_LEFT_OUT = "not part of this run"
_UNTOLD = "no record"
_UNLIKE = "of its models not every number is recorded, or they were judged on other images or come of another network"


@dataclass(frozen=True)
class Outcome:
    """A claim and what came of it on one machine; ``machine`` is empty where no clock was needed, or nothing timed."""

    claim: Claim
    machine: str
    verdict: Verdict
    detail: str
    here: str

    @property
    def cells(self) -> list[str]:
        """Under HEADINGS."""
        claim = self.claim
        judged = "; ".join(filter(None, map(condition_text, claim.checks)))
        verdict = self.verdict + self.detail
        return [claim.claim, f"{claim.paper} ({claim.where})", judged, self.here, verdict, claim.differs]


class Reproduced(NamedTuple):
    """A paper, what came of its claims, and the machines on which its models were timed, with processor and versions;
    without a name that on which they were only made.
    """

    paper: Paper
    outcomes: list[Outcome]
    environments: list[tuple[str, str]]

    @property
    def measured(self) -> list[Outcome]:
        """The outcomes for which there is a number."""
        return [outcome for outcome in self.outcomes if outcome.verdict != "not measured"]


def reproduced(paper: Paper, evidence: Evidence, *, quick: bool = False) -> Reproduced:
    """Judge every claim of a paper by the records: one that takes a clock on each machine on which one of its models
    was to be timed.

    "confirmed": every condition holds, of the whole interval. "not ruled out": every condition holds, but of one that
    claims equality no more is known than that the interval does not exclude it. Where a claim speaks of several models,
    such as whatever runtime or rank, it is judged by the one that comes closest, and ``here`` says of how many. While
    some of them are still to be run, what does not hold is "open".
    """
    plans = paper.plans(quick)
    rows = evidence.rows(trial for plan in plans.values() for trial in plan.trials)
    machines = sorted(set(rows["machine"]) - {""})
    timed = [
        _judged(claim, evidence, plans, machine)
        for machine in machines
        for claim in paper.claims
        if claim.timed and machine in set(evidence.rows(_meant(claim, plans))["machine"])
    ]
    known = [found.claim for found in timed]
    others = [_judged(claim, evidence, plans, "") for claim in paper.claims if claim not in known]
    return Reproduced(paper, timed + others, _environments(rows))


def reproduction_markdown(all_papers: Iterable[Reproduced], *, quick: bool = False) -> str:
    """The page of all papers, in markdown."""
    sections = ["# The papers, reproduced" + (" (quick look: one seed, short tuning, one process)" if quick else "")]
    sections.append(
        "Claim by claim what the paper says and what was measured here. A verdict follows from the interval by rule: "
        "confirmed where the whole interval meets the condition, open while models that may still meet it are to be "
        "run or timed. A condition of equality, with `not above` or `not below`, is at best not ruled out: the "
        "interval holds a value that meets it. Of a loss the interval reaches from the lowest to the highest end of "
        "the seeds' intervals, which cover the chance in the test images; of one seed it says nothing of the chance in "
        "training. Of a speedup it covers fresh processes, as many as the experiment asks for; speedups count in "
        "runtimes whose dense time is within 20 % of the fastest. Where several models are meant, the one shown holds "
        "most of the conditions, with the most to spare in the one that is tightest."
    )
    papers = [*all_papers]
    if environments := sorted({fact for done in papers for fact in done.environments}):
        told = [(f"Environment of {machine}" if machine else "Environment", text) for machine, text in environments]
        sections.append(bullets(told))
    for done in papers:
        if not done.measured:
            continue
        sections.append(f"## {escape(done.paper.title)}\n\n{escape(done.paper.cite)}")
        for machine in dict.fromkeys(outcome.machine for outcome in done.outcomes):
            table = [outcome.cells for outcome in done.outcomes if outcome.machine == machine]
            place = f"Timed on {escape(machine)}:" if machine else "By accuracy and size, or not timed yet:"
            sections += [place, markdown_table(HEADINGS, table)]
    if missing := [done.paper.name for done in papers if not done.measured]:
        sections.append(f"Of these nothing is recorded yet: {escape(', '.join(missing))}.")
    return "\n\n".join(sections) + "\n"


def _judged(claim: Claim, evidence: Evidence, plans: Mapping[str, Planned], machine: str) -> Outcome:
    wanted = _meant(claim, plans)
    if not wanted:
        return Outcome(claim, machine, "not measured", "", _LEFT_OUT)
    left = evidence.unfinished(claim, plans, machine)
    still = (
        f"{left} of {len(wanted)} models not {'timed in every runtime' if claim.timed else 'run'} yet" if left else ""
    )
    judged = list(_complete(claim, evidence, evidence.candidates(claim, plans, machine)))
    if not judged:
        rows = evidence.rows(wanted)
        rows = rows[rows["machine"].isin([machine, ""])] if machine else rows
        reasons = [f"{row.status}: {row.reason}" for row in rows_of(rows) if row.status != "ok"]
        told = [*reasons[:1], "" if rows.empty else still]
        unsaid = _UNTOLD if rows.empty else _UNLIKE
        return Outcome(claim, machine, "not measured", "", "; ".join(filter(None, told)) or unsaid)
    candidate, estimates = max(judged, key=lambda item: _closeness(claim.checks, item[1]))
    pairs = [*zip(claim.checks, estimates, strict=True)]
    grades = [_grade(*pair) for pair in pairs if pair[0].conditions]
    here = f"{', '.join(number_text(*pair) for pair in pairs)}: {candidate_text(candidate)}"
    here += f" (best of {len(judged)})" if len(judged) > 1 else ""
    if min(grades) >= _ENOUGH:
        equality = any(check.of_equality for check in claim.checks)
        return Outcome(claim, machine, "not ruled out" if equality else "confirmed", still and f"; {still}", here)
    if still:
        return Outcome(claim, machine, "open", f": {still}", here)
    return Outcome(claim, machine, "not confirmed", _MEETS[min(grades)], here)


def _environments(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Machines with processor and versions; without a name what no machine that timed them shares."""
    places = rows.loc[rows["environment"] != "", ["machine", "environment"]].drop_duplicates()
    found = sorted(places.itertuples(index=False, name=None))
    named = {text for machine, text in found if machine}
    return [(machine, text) for machine, text in found if machine or text not in named]


def _meant(claim: Claim, plans: Mapping[str, Planned]) -> list[Trial]:
    plan = plans.get(claim.models.experiment)
    return [] if plan is None else claim.models.of(plan.trials)


def _complete(
    claim: Claim, evidence: Evidence, candidates: Iterable[Candidate]
) -> Iterator[tuple[Candidate, list[Estimate]]]:
    for candidate in candidates:
        estimates = [evidence.estimate(check, candidate) for check in claim.checks]
        known = [estimate for estimate in estimates if estimate is not None]
        if len(known) == len(estimates):
            yield candidate, known


def _closeness(checks: Sequence[Check], estimates: Sequence[Estimate]) -> tuple[int, float]:
    """How much of the conditions holds, and then what the tightest of them has to spare."""
    pairs = [pair for pair in zip(checks, estimates, strict=True) if pair[0].conditions]
    return sum(_grade(*pair) for pair in pairs), min(_spare(*pair) for pair in pairs)


def _grade(check: Check, estimate: Estimate) -> int:
    """3: as the condition asks; of those that ask the whole interval 2: the mean does, 1: the better end does."""
    ((name, limit),) = check.conditions.items()
    low, value, high = estimate.low, estimate.value, estimate.high
    if name == "not_below":
        return _ENOUGH * (high >= limit)
    if name == "not_above":
        return _ENOUGH * (low <= limit)
    if name == "at_least":
        return (low >= limit) + (value >= limit) + (high >= limit)
    return (high <= limit) + (value <= limit) + (low <= limit)


def _spare(check: Check, estimate: Estimate) -> float:
    """How far the number is on the good side of its limit: in points, or as a share of the limit of a ratio."""
    ((name, limit),) = check.conditions.items()
    ahead = estimate.value - limit if name in ("at_least", "not_below") else limit - estimate.value
    return ahead if check.metric in IN_POINTS else ahead / limit
