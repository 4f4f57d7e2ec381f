"""Which records a claim may be judged by, and what is missing of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from lowrank_bench.reading import latest
from lowrank_bench.record import MeasurementRecord, TrialRecord
from lowrank_bench.reporting.claims.estimates import Candidate, Estimates
from lowrank_bench.reporting.claims.paper import Claim, Planned
from lowrank_bench.reporting.frame.columns import SETTING, WHAT
from lowrank_bench.reporting.frame.pooling import as_made, best_evidence, one_of_each_seed, pooled_speedup
from lowrank_bench.reporting.frame.practical import BOUNDS, with_practical
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.running.sweep_tables import MeasureTable
from lowrank_bench.trial import BROUGHT, Trial

_TRIAL = ["task", "model", "method", "options", "target", "recipe", "seed"]


class Evidence:
    """Records, as claims look at them: ``frame``, ``trials``, the record that counts for each key, and the
    ``estimates`` that these give.
    """

    def __init__(self, records: Iterable[TrialRecord | MeasurementRecord]) -> None:
        records = list(records)
        self.frame = to_frame(records)
        self.trials = {key: r for key, r in latest(records).items() if isinstance(r, TrialRecord)}
        self._seconds = {key: sum(r.seconds.values()) for key, r in latest(records).items()}
        self.estimates = Estimates(self.trials)
        self._places = defaultdict[tuple[Any, ...], list[int]](list)
        for place, what in enumerate(self.frame[_TRIAL].itertuples(index=False, name=None)):
            self._places[what].append(place)

    def rows(self, trials: Iterable[Trial]) -> pd.DataFrame:
        """The frame's rows of these trials, whatever versions they were recorded under."""
        wanted = {(t.task, t.model, t.method, t.options_text, t.target, t.recipe, t.seed) for t in trials}
        return self.frame.iloc[sorted(place for what in wanted for place in self._places.get(what, ()))]

    def candidates(self, claim: Claim, plans: Mapping[str, Planned], machine: str = "") -> Iterator[Candidate]:
        """What a claim may be judged by: the models that it means, each beside those that it compares with; for times
        in every setting of its experiment on the machine, from as many processes, in runtimes that may carry them.
        """
        measure = plans[claim.models.experiment].sweep.measure
        rows = self.rows(claim.models.of(plans[claim.models.experiment].trials))
        against = None
        if claim.against is not None:
            other = plans.get(claim.against.experiment)
            against = self.rows([] if other is None else claim.against.of(other.trials))
        for (model, *_), group in rows[rows["macs_ratio"].notna()].groupby(["model", *WHAT]):
            models = one_of_each_seed(as_made(group), machine).sort_values("seed")
            beside = None if against is None else self._beside(models, against[against["model"] == model])
            if not claim.timed:
                yield Candidate(models, group[:0], beside)
                continue
            assert measure is not None  # Paper made sure
            timed = _as_planned(_pooled_first(group, machine), measure, machine)
            runtime = claim.models.runtime
            timed = timed[timed["headline"] if runtime is None else timed["runtime"] == runtime]
            for _, setting in timed.groupby(SETTING):
                yield Candidate(models, best_evidence(setting), beside)

    def _beside(self, models: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows whose networks are the models' own: of one name, two machines may have trained one each."""
        wanted = {self._network(key) for key in models["trial"]}
        alike = [self._network(key) in wanted for key in rows["trial"]]
        return rows[pd.Series(alike, rows.index, dtype=bool)]

    def _network(self, trial: str) -> int | None:
        return self.trials[trial].trial.versions.get(BROUGHT)

    def unfinished(self, claim: Claim, plans: Mapping[str, Planned], machine: str = "") -> int:
        """Of how many models that a claim means the end is not known: no record, or, where it takes a clock, none of a
        measurement in a runtime that is meant.
        """
        plan = plans[claim.models.experiment]
        wanted = claim.models.of(plan.trials)
        if not claim.timed:
            return sum(self.rows([trial]).empty for trial in wanted)
        measure, runtimes = _meant_times(claim, plan)
        count = 0
        for trial in wanted:
            rows = self.rows([trial])
            if rows.empty:
                count += 1
            elif rows["macs_ratio"].notna().any() and (not measure.seeds or trial.seed in measure.seeds):
                count += not runtimes <= set(_as_planned(rows, measure, machine)["runtime"])
        return count

    def failed(self, claim: Claim, plans: Mapping[str, Planned], machine: str = "") -> int:
        """How many of the models that a claim means could not be made, or, where it takes a clock, not be timed in a
        runtime that is meant.
        """
        plan = plans[claim.models.experiment]
        found = [rows for trial in claim.models.of(plan.trials) if not (rows := self.rows([trial])).empty]
        made = [rows for rows in found if rows["macs_ratio"].notna().any()]
        if not claim.timed:
            return len(found) - len(made)
        measure, runtimes = _meant_times(claim, plan)
        timed = [_as_planned(rows, measure, machine) for rows in made]
        ended = [rows.loc[rows["runtime"].isin(runtimes), "speedup"] for rows in timed]
        return len(found) - len(made) + sum(bool(speedups.isna().any()) for speedups in ended)

    def minutes(self, plan: Planned, machine: str) -> float:
        """What the records of an experiment say that its models took to make, or on a machine to be timed."""
        rows = self.rows(plan.trials)
        if machine and plan.sweep.measure is not None:
            keys = set(_as_planned(rows, plan.sweep.measure, machine)["key"])
        else:
            keys = set() if machine else set(rows["trial"])
        return sum(self._seconds[key] for key in keys) / 60


def _meant_times(claim: Claim, plan: Planned) -> tuple[MeasureTable, set[str]]:
    """How a claim's models are to be timed, and in which runtimes."""
    measure = plan.sweep.measure
    assert measure is not None  # Paper made sure
    return measure, {*measure.runtimes} if claim.models.runtime is None else {claim.models.runtime}


def _as_planned(rows: pd.DataFrame, measure: MeasureTable, machine: str) -> pd.DataFrame:
    """Those measured on the machine in an experiment's settings, in no fewer processes than it asks for."""
    rows = rows[(rows["kind"] == "measurement") & (rows["machine"] == machine)]
    for name, planned in (("runtime", measure.runtimes), ("threads", measure.threads), ("batch", measure.batches)):
        rows = rows[rows[name].isin(planned)]
    return rows[rows["processes"] >= measure.processes]


def _pooled_first(rows: pd.DataFrame, machine: str) -> pd.DataFrame:
    """A model's timings on the machine, with the practical speedup of its seeds taken together, as on the boards."""
    timed = rows[(rows["machine"] == machine) & rows["speedup"].notna()]
    if timed.empty:
        return timed
    bounds = ["speedup", "speedup_low", "speedup_high"]
    settings = [best_evidence(group) for _, group in timed.groupby(SETTING)]
    pooled = [some.head(1).assign(**dict(zip(bounds, pooled_speedup(some), strict=True))) for some in settings]
    judged = with_practical(pd.concat(pooled), ["threads", "batch"], WHAT)
    return timed.drop(columns=BOUNDS).join(judged.set_index(SETTING)[BOUNDS], on=SETTING)
