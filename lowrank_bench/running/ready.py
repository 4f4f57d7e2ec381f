"""Whether the data of trials are on this machine, and which records stand for trials whose data are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from lowrank_bench.errors import DataMissing
from lowrank_bench.reading import latest
from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.running.crew import Timed
from lowrank_bench.store import End
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.trial import BROUGHT, Measurement, Trial

Pair = tuple[str, str]
"""A task and a model: what they need is the same for all their trials."""


class Skipped(NamedTuple):
    """A trial or measurement that cannot be done here, by the line that names it, and why; whether a record says so."""

    pair: Pair
    item: Trial | Measurement
    title: str
    reason: str
    recorded: bool


def pair_of(trial: Trial) -> Pair:
    """Whose data it needs."""
    return trial.task, trial.model


def check_ready(trials: Iterable[Trial]) -> None:
    """Raise what would stop every trial of a model, before any work is done: data that are missing or damaged, weights
    of another network, classes that disagree; see Task.check_ready.
    """
    for task, model in dict.fromkeys(map(pair_of, trials)):
        get_task(task, model).check_ready(model)


def lacking(trials: Iterable[Trial]) -> dict[Pair, str]:
    """Whose data, weights or trained network are not on this machine, and how to get them. Raises whatever else
    ``check_ready`` raises.
    """
    found: dict[Pair, str] = {}
    for pair in dict.fromkeys(map(pair_of, trials)):
        task, model = pair
        try:
            get_task(task, model).check_ready(model)
        except DataMissing as error:
            found[pair] = str(error)
    return found


def as_recorded(
    trials: Sequence[Trial],
    measurements: Sequence[Measurement],
    lacked: Collection[Pair],
    records: Iterable[TrialRecord | MeasurementRecord],
) -> tuple[list[Trial], list[Measurement]]:
    """The same; but where data are gone, which a trial's key says something of, a trial that was once tried with them
    stands as it was recorded then, the last time.
    """
    ends = [record for record in latest(records).values() if isinstance(record, TrialRecord)]
    done = [end.trial for end in ends if not end.reason.startswith(f"{DataMissing.__name__}:")]
    known, twins = {trial.key for trial in done}, {_without_data(trial): trial for trial in done}
    stands = {
        trial.key: trial
        if trial.key in known or pair_of(trial) not in lacked
        else twins.get(_without_data(trial), trial)
        for trial in trials
    }
    return [*stands.values()], [m.model_copy(update={"trial": stands[m.trial].key}) for m in measurements]


def set_aside(
    to_try: Sequence[Trial], to_time: Sequence[Timed], known: Mapping[str, End], lacked: Mapping[Pair, str]
) -> tuple[list[Trial], list[Timed], list[Skipped]]:
    """What of it can be done, and what is skipped: trials whose data are gone, and timings of models that were made and
    are gone too.
    """
    reasons = {pair: f"{DataMissing.__name__}: {reason}" for pair, reason in lacked.items()}
    unable = {trial.key: reasons[pair_of(trial)] for trial in to_try if pair_of(trial) in reasons}
    made = {key for key in unable if key in known and known[key].status is Status.OK}
    items: list[tuple[Trial, Trial | Measurement, str]] = [
        *((trial, trial, str(trial)) for trial in to_try if trial.key in unable.keys() - made),
        *((trial, timed, f"{trial} on {timed.setting}") for trial, timed in to_time if trial.key in made),
    ]
    skipped = [
        Skipped(
            pair_of(trial),
            item,
            title,
            unable[trial.key],
            known.get(item.key) == End(Status.SKIPPED, unable[trial.key]),
        )
        for trial, item, title in items
    ]
    return (
        [trial for trial in to_try if trial.key not in unable],
        [timed for timed in to_time if timed[0].key not in unable],
        skipped,
    )


def _without_data(trial: Trial) -> str:
    versions = {stage: number for stage, number in trial.versions.items() if stage != BROUGHT}
    return trial.model_copy(update={"versions": versions}).key
