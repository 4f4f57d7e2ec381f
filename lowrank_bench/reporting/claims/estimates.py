"""The number that a claim is judged by, with its interval, from the records of the models that it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowrank_bench.measurement.quality import paired_drop, paired_drop_ratio, unpack_hits
from lowrank_bench.record import LayerSize, TrialRecord
from lowrank_bench.reporting.claims.paper import COMPARED, TIMED, Check
from lowrank_bench.reporting.frame.pooling import pooled_speedup
from lowrank_bench.reporting.frame.practical import BOUNDS
from lowrank_bench.reporting.frame.records_frame import judged_alike
from lowrank_bench.trial import BROUGHT, CONTROL


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


class Estimates:
    """Numbers from ``trials``, the record that counts for each key."""

    def __init__(self, trials: Mapping[str, TrialRecord]) -> None:
        self.trials = trials
        self._controls = {r.trial.control: r for r in trials.values() if r.trial.method == CONTROL}

    def of(self, check: Check, candidate: Candidate) -> Estimate | None:
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
