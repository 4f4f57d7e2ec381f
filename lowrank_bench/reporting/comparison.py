"""Two sets of records, before and after: what differs around them, and which rows moved beyond their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.measurement.environment import THREAD_VARIABLES
from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import MeasurementRecord, TrialRecord
from lowrank_bench.reporting.boards.board import Row
from lowrank_bench.reporting.boards.cells import loss_text, speedup_text
from lowrank_bench.reporting.boards.reach import reach
from lowrank_bench.reporting.comparison_side import OK, Key, Side
from lowrank_bench.reporting.frame.columns import listed_seeds
from lowrank_bench.reporting.frame.pooling import over_seeds
from lowrank_bench.reporting.frame.records_frame import flat_environment
from lowrank_bench.reporting.regressions import REGRESSIONS, Direction
from lowrank_bench.trial import CONTROL

_Records = list[TrialRecord | MeasurementRecord]
_PASSING = ("load", "torch_threads", *THREAD_VARIABLES)


@dataclass(frozen=True)
class Change:
    """A row that moved: which one, in what, from where to where; ``regression``: it got worse, not for another
    machine.
    """

    row: str
    setting: str
    measure: str
    before: str
    after: str
    direction: Direction
    regression: bool


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two sets of records.

    ``notes`` say why there was nothing to compare; ``differences`` are name, before and after of whatever may explain a
    change; ``other_machines``: the sides share no machine; ``compared`` counts the timed rows that both sides have,
    ``models`` the models, timed or not; ``only_before`` and ``only_after`` name the rows, and the models without a
    time, that one side lacks.
    """

    notes: list[str]
    differences: list[tuple[str, str, str]]
    other_machines: bool
    changes: list[Change]
    compared: int
    models: int
    only_before: list[str]
    only_after: list[str]

    def regressions(self, directions: Iterable[str] = REGRESSIONS) -> list[Change]:
        """The changes in these directions that count against ``after``."""
        wanted = set(directions)
        return [change for change in self.changes if change.regression and change.direction in wanted]


def compare(before: Path | str, after: Path | str) -> Comparison:
    """Compare two folders of records. Where one holds nothing readable, the other's rows are still named.

    A speedup moved where the 95 % intervals of both sides, each widened by its noise floor, lie apart; a loss of top-1
    where its intervals lie apart, a size where it differs at all, both over the seeds that both sides have. A row that
    had a result and ended without one is worse. Timings of one machine are compared with those of the same machine;
    only where there are none, with those of others, and then no difference in speed is a regression. Raises
    InvalidRecord where a folder does not exist, or neither holds a readable record.
    """
    sides = [read_records(folder, allow_empty=True) for folder in (before, after)]
    if not any(sides):
        raise InvalidRecord(f"neither {before} nor {after} holds a readable record: name two folders of records")
    notes = [
        f"{folder} holds no readable record: nothing can be compared with it"
        for folder, records in zip((before, after), sides, strict=True)
        if not records
    ]
    old, new = (Side(records) for records in sides)
    shared = [key for key in old.trials if key in new.trials and key[1] != CONTROL]
    if all(sides) and not shared:
        notes.append("both sides hold records, but not of one model in common: nothing was compared")
    changes = [*_speed_changes(old, new), *_model_changes(old, new), *_outcome_changes(old, new)]
    return Comparison(
        notes,
        _differences(*sides) if all(sides) else [],
        other_machines=bool(old.machines and new.machines) and not old.machines & new.machines,
        changes=sorted(changes, key=lambda change: [*REGRESSIONS, change.direction].index(change.direction)),
        compared=len(old.times.keys() & new.times.keys()),
        models=len(shared),
        only_before=[*map(_name, old.lacking(new))],
        only_after=[*map(_name, new.lacking(old))],
    )


def _name(key: Key) -> str:
    place, method, target, *setting = key
    return ", ".join(filter(None, (f"{place}: {method} {target}".rstrip(), *setting)))


def _speed_changes(old: Side, new: Side) -> Iterator[Change]:
    for key, theirs in old.times.items():
        ours = new.times.get(key, {})
        same = theirs.keys() & ours.keys()
        for was, now in [(m, m) for m in sorted(same)] or product(sorted(theirs), sorted(ours)):
            before, after = theirs[was], ours[now]
            direction: Direction
            if reach(after)[1] < reach(before)[0]:
                direction = "slower"
            elif reach(after)[0] > reach(before)[1]:
                direction = "faster"
            else:
                continue
            place = was if was == now else f"{was} → {now}"
            old_text, new_text = (f"{speedup_text(row)}, {row.compressed_ms:.3g} ms" for row in (before, after))
            counts = direction == "slower" and was == now
            where = f"{key[3]}, {place}"
            yield Change(_name(key[:3]), where, "speedup", old_text, new_text, direction, counts)


def _model_changes(old: Side, new: Side) -> Iterator[Change]:
    for key, models in old.models.items():
        if (others := new.models.get(key)) is None:
            continue
        (before, after), seeds = _over_shared_seeds(models, others)
        name, runtime = _name(key[:3]), key[3]
        where = ", ".join(filter(None, (runtime, seeds)))
        if after.top1_drop_low > before.top1_drop_high:
            yield Change(name, where, "loss, points", loss_text(before), loss_text(after), "worse", True)
        elif after.top1_drop_high < before.top1_drop_low:
            yield Change(name, where, "loss, points", loss_text(before), loss_text(after), "better", False)
        if runtime:
            continue  # the model is the same in every runtime
        sizes = (
            ("bytes", before.bytes, after.bytes, ",.0f"),
            ("MACs, share of dense", 1 / before.macs_ratio, 1 / after.macs_ratio, ".4%"),
        )
        for measure, was, now, form in sizes:
            if f"{was:.6g}" != f"{now:.6g}":
                larger = now > was
                texts = f"{was:{form}}", f"{now:{form}}"
                yield Change(name, where, measure, *texts, "larger" if larger else "smaller", larger)


def _over_shared_seeds(*sides: pd.DataFrame) -> tuple[list[Row], str]:
    """Both sides' models, over the seeds that both have if there are any; and these seeds where a side has others."""
    seeds = [set(models["seed"]) for models in sides]
    shared = seeds[0] & seeds[1]
    used = [models[models["seed"].isin(shared)] if shared else models for models in sides]
    rows = [SimpleNamespace(**over_seeds(models)) for models in used]
    return rows, f"seed {listed_seeds([*shared])}" if shared and seeds[0] != seeds[1] else ""


def _outcome_changes(old: Side, new: Side) -> Iterator[Change]:
    """What had a result and now ended without one, and the reverse; models first, whose times are not missed again."""
    ways: list[tuple[Side, Side, Direction]] = [(old, new, "worse"), (new, old, "better")]
    for one, other, direction in ways:
        counts = direction == "worse"
        for key, ends in one.trials.items():
            others = other.trials.get(key, {})
            lost = [seed for seed, end in ends.items() if end == OK != others.get(seed, OK)]
            if lost:
                texts = _in_order(others[lost[0]], direction)
                yield Change(_name(key), f"seed {listed_seeds(lost)}", "outcome", *texts, direction, counts)
        for key, times in one.times.items():
            found, still = other.untimed.get(key, {}), other.times.get(key, {})
            shared = sorted(found.keys() & times.keys() - still.keys())
            if not shared and (still or not found):
                continue
            machine = shared[0] if shared else sorted(found)[0]
            texts = _in_order(found[machine], direction)
            place = f"{key[3]}, {machine}"
            yield Change(_name(key[:3]), place, "outcome", *texts, direction, counts and bool(shared))


def _in_order(end: str, direction: Direction) -> tuple[str, str]:
    return (OK, end) if direction == "worse" else (end, OK)


def _differences(old: _Records, new: _Records) -> list[tuple[str, str, str]]:
    before, after = _circumstances(old), _circumstances(new)
    texts = {
        name: tuple(" / ".join(sorted(side.get(name, ()))) or "none" for side in (before, after))
        for name in [*before, *(name for name in after if name not in before)]
    }
    return [(name, was, now) for name, (was, now) in texts.items() if was != now]


def _circumstances(records: _Records) -> dict[str, set[str]]:
    """Every value of whatever may explain a change: environment, how it was timed, declared versions, the code."""
    found: dict[str, set[str]] = {}
    for record in latest(records).values():
        facts: dict[str, Any] = {
            name: value for name, value in flat_environment(record.environment).items() if name not in _PASSING
        }
        if isinstance(record, TrialRecord):
            facts |= _versions(record)
        else:
            timed = record.measurement
            facts |= {"processes": timed.processes, "precision": timed.precision, "version of timing": timed.version}
        for name, value in (facts | {"fingerprint of the code": record.code}).items():
            if value not in (None, "", {}):
                found.setdefault(name, set()).add(str(value))
    return found


def _versions(record: TrialRecord) -> Mapping[str, int]:
    named = {"method": record.trial.method, "task": record.trial.task, "recipe": f"recipe {record.trial.recipe}"}
    return {f"version of {named.get(stage, stage)}": version for stage, version in record.trial.versions.items()}
