"""From records to the numbers that a claim is judged by, each with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowrank_bench.measurement.quality import paired_drop, paired_drop_ratio, unpack_hits
from lowrank_bench.reading import latest
from lowrank_bench.record import LayerSize, MeasurementRecord, TrialRecord
from lowrank_bench.reporting.columns import SETTING, WHAT
from lowrank_bench.reporting.paper import COMPARED, TIMED, Check, Claim, Planned
from lowrank_bench.reporting.pooling import as_made, best_evidence, one_of_each_seed, pooled_speedup
from lowrank_bench.reporting.practical import BOUNDS, with_practical
from lowrank_bench.reporting.records_frame import judged_alike, to_frame
from lowrank_bench.running.sweep import MeasureTable
from lowrank_bench.trial import BROUGHT, CONTROL, Trial

_TRIAL = ["task", "model", "method", "options", "target", "recipe", "seed"]


class Estimate(NamedTuple):
    """A number and its interval; of what is counted, such as parameters, the ends are those over the seeds. Where the
    interval is not known both ends are the number.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """One model over its seeds, in one setting where a claim needs times. ``models``: a row of the frame for each
    seed; ``timed``: its rows in that setting; ``others``: rows of what the claim compares with, None where that is the
    dense control.
    """

    models: pd.DataFrame
    timed: pd.DataFrame
    others: pd.DataFrame | None


class Evidence:
    """Records, as claims look at them: ``frame``, and ``trials``, the record that counts for each key."""

    def __init__(self, records: Iterable[TrialRecord | MeasurementRecord]) -> None:
        records = list(records)
        self.frame = to_frame(records)
        self.trials = {key: r for key, r in latest(records).items() if isinstance(r, TrialRecord)}
        self._seconds = {key: sum(r.seconds.values()) for key, r in latest(records).items()}
        self._controls = {r.trial.control: r for r in self.trials.values() if r.trial.method == CONTROL}
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
        return rows[[self._network(key) in wanted for key in rows["trial"]]]

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

    def estimate(self, check: Check, candidate: Candidate) -> Estimate | None:
        """The number that a check asks for; None where it is not among the records."""
        if candidate.models.empty:
            return None
        if check.metric in TIMED:
            return _timed(check, candidate)
        if check.metric in ("params_ratio", "macs_ratio"):
            return _spread(candidate.models[check.metric])
        if check.metric == "loss_ratio":
            return _over_seeds(self._loss_ratio(own, other) for own, other in self._pairs(candidate))
        if check.metric == "loss_as_it_came":
            return _over_seeds(self._loss_as_it_came(self.trials[key]) for key in candidate.models["trial"])
        if check.metric != "loss":
            return self._of_layer(check, candidate)
        if candidate.others is None:
            lost = candidate.models[["top1_drop", "top1_drop_low", "top1_drop_high"]].dropna()
            return _over_seeds(Estimate(*row) for row in lost.itertuples(index=False, name=None))
        return _over_seeds(_paired_loss(own, other) for own, other in self._pairs(candidate))

    def _of_layer(self, check: Check, candidate: Candidate) -> Estimate | None:
        read = _READERS[check.metric]
        if check.metric in COMPARED:
            sides = [[_layer(record, check.layer) for record in pair] for pair in self._pairs(candidate)]
            pairs = [(read(own), read(other)) for own, other in sides if own and other]
            values = [own / other for own, other in pairs if own is not None and other]
        else:
            layers = [_layer(self.trials[key], check.layer) for key in candidate.models["trial"]]
            values = [value for layer in layers if layer and (value := read(layer)) is not None]
        return _spread(pd.Series(values, dtype="float64")) if values else None

    def _pairs(self, candidate: Candidate) -> Iterator[tuple[TrialRecord, TrialRecord]]:
        """Our models, each beside the other of its seed and dense network: at the same target where there is one, else
        the only one.
        """
        for own in (self.trials[key] for key in candidate.models["trial"]):
            assert candidate.others is not None  # a claim with such a check names them
            others = [self.trials[key] for key in candidate.others["trial"].unique()]
            others = [other for other in others if other.trial.seed == own.trial.seed and _of_one_network(own, other)]
            alike = [other for other in others if other.trial.target == own.trial.target]
            if len(chosen := alike or others) == 1:
                yield own, chosen[0]

    def _loss_ratio(self, own: TrialRecord, other: TrialRecord) -> Estimate | None:
        control = self._controls.get(own.trial.control)
        if control is None or (judged := _judged_alike(control, own, other)) is None:
            return None
        (dense, ours, theirs), groups = judged
        ratio = paired_drop_ratio(dense, ours, theirs, groups)
        return None if ratio is None else Estimate(*ratio)

    def _loss_as_it_came(self, own: TrialRecord) -> Estimate | None:
        control = self._controls.get(own.trial.control)
        if control is None or (judged := _judged_alike(control, own)) is None:
            return None
        (_, ours), groups = judged
        assert control.quality is not None  # it was judged
        return Estimate(*paired_drop(unpack_hits(control.quality.hits_before, len(ours)), ours, groups))


def _paired_loss(own: TrialRecord, other: TrialRecord) -> Estimate | None:
    if (judged := _judged_alike(other, own)) is None:
        return None
    (theirs, ours), groups = judged
    return Estimate(*paired_drop(theirs, ours, groups))


def _judged_alike(*records: TrialRecord) -> tuple[list[NDArray[np.bool_]], list[int] | None] | None:
    """Which test images each got right, and the images' groups; None unless all were judged on the same ones, and come
    of one dense network.
    """
    qualities = [record.quality for record in records if record.quality is not None]
    if len(qualities) < len(records) or not _of_one_network(*records):
        return None
    return judged_alike(qualities)


def _of_one_network(*records: TrialRecord) -> bool:
    return len({record.trial.versions.get(BROUGHT) for record in records}) == 1


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


def _timed(check: Check, candidate: Candidate) -> Estimate | None:
    if candidate.timed.empty:
        return None
    if check.metric == "practical":
        bounds = candidate.timed[BOUNDS].iloc[0].astype("float64")
        if bounds.isna()["practical"]:
            return None
        return Estimate(*bounds.fillna({"practical_low": 0.0, "practical_high": float("inf")}))  # nothing says it
    interval = Estimate(*map(float, pooled_speedup(candidate.timed)))
    if check.metric == "speedup":
        return interval
    promised = float(candidate.models["macs_ratio"].mean())
    return Estimate(*(end / promised for end in interval))


def _spread(values: pd.Series[float]) -> Estimate:
    return Estimate(float(values.mean()), float(values.min()), float(values.max()))


def _over_seeds(losses: Iterable[Estimate | None]) -> Estimate | None:
    """The mean, with the lowest and the highest end of the seeds' intervals, as on the boards."""
    known = [loss for loss in losses if loss is not None]
    if not known:
        return None
    return Estimate(
        sum(loss.value for loss in known) / len(known), min(k.low for k in known), max(k.high for k in known)
    )


def _layer(record: TrialRecord, name: str | None) -> LayerSize | None:
    return None if record.size is None or name is None else record.size.layers.get(name)


_READERS: dict[str, Callable[[LayerSize], float | None]] = {
    "layer_params_ratio": lambda layer: layer.dense_params / layer.params,
    "layer_macs_ratio": lambda layer: layer.dense_macs / layer.macs,
    "weight_error": lambda layer: layer.error,
    "weight_error_ratio": lambda layer: layer.error,
}
