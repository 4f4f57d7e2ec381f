"""The papers' claims beside what the records say of them: verdicts by rule, and the page that lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.fits import fits_table
from lowrank_bench.reporting.claims.paper import Paper
from lowrank_bench.reporting.claims.verdicts import HEADINGS, Outcome, judged, meant
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table

_HOW = [
    "Claim by claim what the paper says and what was measured here. A verdict follows by rule: confirmed where the "
    "whole 95 % interval meets the condition, not confirmed where no part of it does, undecided where a part does, "
    "open while models that may still decide it are to be run or timed, and no other machine has decided it. A "
    "condition of equality, with `not above` or `not below`, is at best not ruled out: the interval holds a value "
    "that meets it. Of a loss the interval reaches from the lowest to the highest end of the seeds' intervals, which "
    "cover the chance in the test images; of one seed it says nothing of the chance in training. Of a speedup it "
    "covers fresh processes, as many as the experiment asks for; speedups count in runtimes whose dense time is "
    "within 20 % of the fastest. Unstable: its processes differ by more than chance.",
    "Not every number has an interval. Ratios of parameters and of MACs are exact counts, and a kernel's error is a "
    "point estimate, or over several seeds their range: where a verdict rests on such a number, it says so. Not a "
    "claim of the paper's: its number asked of a model that it does not have, or a comparison that it does not make. "
    "Quoted from memory: no source at hand confirms the paper's number, and the verdict is on the number as it is "
    "quoted.",
    "Where several models or runtimes are meant, the one shown holds most of the conditions, with the most to spare "
    "in the one that is tightest: it is picked by the numbers that it is judged by, with no correction for that. A "
    "claim about every one of them is judged by all: the one farthest from meeting it is shown, and decides. Not met "
    "in the fastest runtimes: the speedup holds in the runtime shown, and not with the dense and the compressed model "
    "each in its own fastest one.",
]


class Reproduced(NamedTuple):
    """A paper, what came of its claims, and the machines on which its models were timed, with processor and versions;
    without a name that on which they were only made. ``minutes``: what timing took by the records, by machine, and
    making the models under the empty name; ``fits``: tables of how well layers were fitted.
    """

    paper: Paper
    outcomes: list[Outcome]
    environments: list[tuple[str, str]]
    minutes: dict[str, float]
    fits: list[str]

    @property
    def measured(self) -> list[Outcome]:
        """The outcomes for which there is a number."""
        return [outcome for outcome in self.outcomes if outcome.verdict != "not measured"]


def reproduced(paper: Paper, evidence: Evidence, *, quick: bool = False) -> Reproduced:
    """Judge every claim of a paper by the records: one that takes a clock on each machine on which one of its models
    was to be timed. Where one machine has it decided, those on which it is still open are left out.
    """
    plans = paper.plans(quick)
    rows = evidence.rows(trial for plan in plans.values() for trial in plan.trials)
    machines = sorted(set(rows["machine"]) - {""})
    timed = [
        judged(claim, evidence, plans, machine)
        for machine in machines
        for claim in paper.claims
        if claim.timed and machine in set(evidence.rows(meant(claim, plans))["machine"])
    ]
    known = [found.claim for found in timed]
    others = [judged(claim, evidence, plans, "") for claim in paper.claims if claim not in known]
    minutes = {name: sum(evidence.minutes(plan, name) for plan in plans.values()) for name in ("", *machines)}
    wanted = {name: experiment.fits for name, experiment in paper.experiments.items() if experiment.fits}
    fits = [fits_table(evidence, plans[name].trials, layer) for name, layer in wanted.items() if name in plans]
    decided = [found.claim for found in timed if found.verdict not in ("open", "not measured")]
    timed = [found for found in timed if found.verdict != "open" or found.claim not in decided]
    return Reproduced(paper, timed + others, _environments(rows), minutes, [*filter(None, fits)])


def reproduction_markdown(all_papers: Iterable[Reproduced], *, quick: bool = False) -> str:
    """The page of all papers, in markdown."""
    sections = ["# The papers, reproduced" + (" (quick look: one seed, short tuning, one process)" if quick else "")]
    sections += _HOW
    papers = [*all_papers]
    if environments := sorted({fact for done in papers for fact in done.environments}):
        named = {text for machine, text in environments if machine}
        told = [
            (f"Environment of {machine}" if machine else "Environment", text)
            for machine, text in environments
            if machine or text not in named
        ]
        sections.append(bullets(told))
    for done in papers:
        if not done.measured:
            continue
        sections.append(f"## {escape(done.paper.title)}\n\n{escape(done.paper.cite)}")
        for machine in dict.fromkeys(outcome.machine for outcome in done.outcomes):
            table = [outcome.cells for outcome in done.outcomes if outcome.machine == machine]
            place = f"Timed on {escape(machine)}:" if machine else "By accuracy and size, or not timed yet:"
            sections += [place, markdown_table(HEADINGS, table)]
        sections += [*done.fits, _took(done.minutes)]
    if missing := [done.paper.name for done in papers if not done.measured]:
        sections.append(f"Of these nothing is recorded yet: {escape(', '.join(missing))}.")
    return "\n\n".join(sections) + "\n"


def _took(minutes: dict[str, float]) -> str:
    """How long it took, by the records."""
    timing = [f"timing them {minutes[name]:.0f} on {escape(name)}" for name in minutes if name and minutes[name] >= 0.5]
    told = ", ".join([f"making the models {minutes['']:.0f}", *timing])
    return f"Minutes by these records, one after another, without the start of processes: {told}."


def _environments(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Machines with processor and versions, without a name where models were made."""
    places = rows.loc[rows["environment"] != "", ["machine", "environment"]].drop_duplicates()
    return sorted(places.itertuples(index=False, name=None))
