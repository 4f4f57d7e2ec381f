"""What came of a claim on a machine: a verdict by rule, from the intervals and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lowrank_bench.reporting.boards.board import rows_of
from lowrank_bench.reporting.claims.claim_text import COUNT, candidate_text, condition_text, kind_text, number_text
from lowrank_bench.reporting.claims.estimates import Candidate, Estimate
from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.paper import IN_POINTS, Check, Claim, Planned
from lowrank_bench.trial import Trial

Verdict = Literal["confirmed", "not ruled out", "undecided", "not confirmed", "open", "not measured"]

HEADINGS = ["Claim", "Paper", "Judged by", "Here [95 %]", "Verdict", "What differs"]

_STRADDLES = {
    2: ": the estimate meets it, its whole interval does not",
    1: ": only the better end of the interval meets it",
}
_ENOUGH = 3
_LEFT_OUT = "not part of this run"
_UNTOLD = "no record"
_UNLIKE = "of its models not every number is recorded, or they were judged on other images or come of another network"
_FROM_MEMORY = "quoted from memory"
_OURS = "not a claim of the paper's"


@dataclass(frozen=True)
class Outcome:
    """A claim and what came of it on one machine; ``machine`` is empty where no clock was needed, or nothing timed.

    ``numbers``: those that it was judged by, without the model that they are of, which ``here`` has too.
    """

    claim: Claim
    machine: str
    verdict: Verdict
    detail: str
    here: str
    numbers: str = ""

    @property
    def judged_by(self) -> str:
        """The claim's conditions."""
        asked = "; ".join(filter(None, map(condition_text, self.claim.checks)))
        return f"{asked}, of every one" if self.claim.every else asked

    @property
    def told(self) -> str:
        """The verdict with its detail, and whether the claim itself is quoted unchecked."""
        unread = self.claim.from_memory and self.verdict != "not measured"
        return f"{self.verdict}{self.detail}" + ("; what the paper says is not checked" if unread else "")

    @property
    def cells(self) -> list[str]:
        """Under HEADINGS."""
        claim = self.claim
        said = [claim.where, *[_OURS] * claim.ours, *[_FROM_MEMORY] * claim.from_memory]
        return [claim.claim, f"{claim.paper} ({'; '.join(said)})", self.judged_by, self.here, self.told, claim.differs]


def judged(claim: Claim, evidence: Evidence, plans: Mapping[str, Planned], machine: str) -> Outcome:
    """Judge a claim by the records of one machine, or by those that need no clock.

    "confirmed": every condition holds, of the whole interval; "not confirmed": one holds of no part of its interval;
    "undecided": one holds of a part. "not ruled out": every condition holds, but of one that claims equality no more is
    known than that the interval does not exclude it. Where a claim speaks of several models, such as whatever runtime
    or rank, it is judged by the one that comes closest, one about every model by the one that is farthest off, and
    ``here`` says of how many. While some of them are still to be run, what does not hold of any yet, or does of every
    one so far, is "open".
    """
    wanted = meant(claim, plans)
    if not wanted:
        return Outcome(claim, machine, "not measured", "", _LEFT_OUT)
    left = evidence.unfinished(claim, plans, machine)
    still = (
        f"{left} of {len(wanted)} models not {'timed in every runtime' if claim.timed else 'run'} yet" if left else ""
    )
    known = list(_complete(claim, evidence, evidence.candidates(claim, plans, machine)))
    if not known:
        return Outcome(claim, machine, "not measured", "", _why_not(evidence.rows(wanted), machine, still))
    pick = min if claim.every else max
    candidate, estimates = pick(known, key=lambda item: _closeness(claim.checks, item[1]))
    shown = ", ".join(dict.fromkeys(number_text(*pair) for pair in zip(claim.checks, estimates, strict=True)))
    here = f"{shown}: {candidate_text(candidate)}{_among(claim, [some for _, some in known])}"
    deciding = _deciding(claim.checks, estimates)
    numbers = ", ".join(dict.fromkeys(number_text(*pair) for pair in deciding))
    kinds = dict.fromkeys(kind for pair in deciding if (kind := kind_text(*pair)) not in ("", COUNT))
    by = f" (by the {' and the '.join(kinds)})" if kinds else ""
    worst = min(_grade(*pair) for pair in deciding)
    if still and claim.every == (worst >= _ENOUGH):  # those that are left may settle it
        return Outcome(claim, machine, "open", f": {still}", here, numbers)
    if not worst:
        return Outcome(claim, machine, "not confirmed", by, here, numbers)
    if worst < _ENOUGH:
        return Outcome(claim, machine, "undecided", by + _STRADDLES[worst], here, numbers)
    if claim.every and (failed := evidence.failed(claim, plans, machine)):
        return Outcome(claim, machine, "undecided", f"{by}: {failed} of {len(wanted)} models failed", here, numbers)
    free, unmet = _in_the_fastest(claim, evidence, candidate)
    detail = by + unmet + (still and f"; {still}")
    equality = any(check.of_equality for check in claim.checks)
    return Outcome(claim, machine, "not ruled out" if equality else "confirmed", detail, here + free, numbers)


def meant(claim: Claim, plans: Mapping[str, Planned]) -> list[Trial]:
    """The models that a claim speaks of; none where its experiment is left out."""
    plan = plans.get(claim.models.experiment)
    return [] if plan is None else claim.models.of(plan.trials)


def _why_not(rows: pd.DataFrame, machine: str, still: str) -> str:
    """Why no number of these models' is known, on the machine where it takes one."""
    rows = rows[rows["machine"].isin([machine, ""])] if machine else rows
    reasons = [f"{row.status}: {row.reason}" for row in rows_of(rows) if row.status != "ok"]
    told = [*reasons[:1], "" if rows.empty else still]
    return "; ".join(filter(None, told)) or (_UNTOLD if rows.empty else _UNLIKE)


def _complete(
    claim: Claim, evidence: Evidence, candidates: Iterable[Candidate]
) -> Iterator[tuple[Candidate, list[Estimate]]]:
    for candidate in candidates:
        estimates = [evidence.estimates.of(check, candidate) for check in claim.checks]
        known = [estimate for estimate in estimates if estimate is not None]
        if len(known) == len(estimates):
            yield candidate, known


def _among(claim: Claim, estimates: Sequence[Sequence[Estimate]]) -> str:
    """Of how many models, or timings of models, the one shown is."""
    count = len(estimates)
    if count == 1:
        return ""
    what = "timings" if claim.timed else "models"
    if not claim.every:
        return f" (best of {count} {what})"
    met = sum(all(_grade(*pair) >= _ENOUGH for pair in _deciding(claim.checks, some)) for some in estimates)
    return f" (farthest of {count} {what}, {met} of which meet it)"


def _in_the_fastest(claim: Claim, evidence: Evidence, candidate: Candidate) -> tuple[str, str]:
    """Of a speedup that holds in its runtime: where it does not with dense and compressed model each in its fastest
    one, that number, unless the claim shows it anyway, and that it does not. Nothing of a claim that names its runtime.
    """
    if claim.models.runtime is not None:
        return "", ""
    for check in claim.checks:
        if check.metric == "speedup" and check.conditions:
            free = Check.model_validate({"metric": "practical", **check.conditions})
            estimate = evidence.estimates.of(free, candidate)
            if estimate is None or math.isnan(estimate.value) or _grade(free, estimate) >= _ENOUGH:
                continue
            shown = any(other.metric == "practical" for other in claim.checks)
            return "" if shown else f"; {number_text(free, estimate)}", "; not met in the fastest runtimes"
    return "", ""


def _closeness(checks: Sequence[Check], estimates: Sequence[Estimate]) -> tuple[int, int, float]:
    """How much holds of the condition that decides, the least met, then of all, and then what the tightest has to
    spare.
    """
    pairs = _deciding(checks, estimates)
    grades = [_grade(*pair) for pair in pairs]
    return min(grades), sum(grades), min(_spare(*pair) for pair in pairs)


def _deciding(checks: Sequence[Check], estimates: Sequence[Estimate]) -> list[tuple[Check, Estimate]]:
    """The checks that ask something, with their numbers."""
    return [pair for pair in zip(checks, estimates, strict=True) if pair[0].conditions]


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
