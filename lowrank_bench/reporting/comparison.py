"""Two sets of records, before and after: what differs around them, and which rows moved beyond their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.reading import latest, read_records
from lowrank_bench.record import MeasurementRecord, TrialRecord
from lowrank_bench.reporting.board import Board, Row, make_boards, rows_of
from lowrank_bench.reporting.cells import loss_text, method_text, setting_text, speedup_text
from lowrank_bench.reporting.records_frame import flat_environment, to_frame
from lowrank_bench.trial import CONTROL

Direction = Literal["slower", "larger", "worse", "faster", "smaller", "better"]
REGRESSIONS: tuple[Direction, ...] = ("slower", "larger", "worse")

_Key = tuple[str, ...]
_Records = list[TrialRecord | MeasurementRecord]
_PASSING = ("load",)
_NOT_TIMED = "not timed"


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

    ``differences`` are name, before and after of whatever may explain a change; ``other_machines``: the sides share no
    machine; ``compared`` counts the timed rows that both sides have, ``only_before`` and ``only_after`` name those that
    one side lacks.
    """

    notes: list[str]
    differences: list[tuple[str, str, str]]
    other_machines: bool
    changes: list[Change]
    compared: int
    only_before: list[str]
    only_after: list[str]

    def regressions(self, directions: Iterable[str] = REGRESSIONS) -> list[Change]:
        """The changes in these directions that count against ``after``."""
        wanted = set(directions)
        return [change for change in self.changes if change.regression and change.direction in wanted]


def compare(before: Path | str, after: Path | str) -> Comparison:
    """Compare two folders of records. Where one holds nothing readable, the other's rows are still named.

    A speedup moved where the 95 % intervals of both sides, each widened by its noise floor, lie apart; a loss of top-1
    where its intervals lie apart; a size where it differs at all. A row that had a result and ended without one is
    worse. Timings of one machine are compared with those of the same machine; only where there are none, with those of
    others, and then no difference in speed is a regression. Raises InvalidRecord where a folder does not exist, or
    neither holds a readable record.
    """
    sides = [read_records(folder, allow_empty=True) for folder in (before, after)]
    if not any(sides):
        raise InvalidRecord(f"neither {before} nor {after} holds a readable record: name two folders of records")
    notes = [
        f"{folder} holds no readable record: nothing can be compared with it"
        for folder, records in zip((before, after), sides, strict=True)
        if not records
    ]
    old, new = (_Side(records) for records in sides)
    changes = [*_speed_changes(old, new), *_model_changes(old, new), *_outcome_changes(old, new)]
    return Comparison(
        notes,
        _differences(*sides) if all(sides) else [],
        other_machines=bool(old.machines and new.machines) and not old.machines & new.machines,
        changes=sorted(changes, key=lambda change: [*REGRESSIONS, change.direction].index(change.direction)),
        compared=len(old.times.keys() & new.times.keys()),
        only_before=[_name(key) for key in old.times if key not in new.times],
        only_after=[_name(key) for key in new.times if key not in old.times],
    )


class _Side:
    """One set of records, by what its rows share with those of the other set."""

    def __init__(self, records: _Records) -> None:
        boards = make_boards(to_frame(records)) if records else []
        self.machines = {board.machine for board in boards} - {""}
        self.times: dict[_Key, dict[str, Row]] = {}
        """By row and setting, then by machine."""
        self.models: dict[_Key, Row] = {}
        """By row, and by runtime where it computes in fewer bits and so has an accuracy of its own."""
        self.ends: dict[_Key, dict[str, str]] = {}
        """How what has no time ended, by row and setting (none: the model was not made), then by machine."""
        for board in boards:
            for row in rows_of(board.rows[board.rows["method"] != CONTROL]):
                setting = setting_text(row.runtime, row.threads, row.batch)
                self.times.setdefault((*_row(board, row), setting), {})[board.machine] = row
                own = row.runtime if row.arithmetic != "float32" else ""
                self.models.setdefault((*_row(board, row), own), row)
            for row in rows_of(board.unranked[board.unranked["status"] != _NOT_TIMED]):
                setting = setting_text(row.runtime, row.threads, row.batch) if row.runtime else ""
                end = ": ".join(filter(None, (row.status, row.reason)))
                self.ends.setdefault((*_row(board, row), setting), {})[board.machine] = end


def _row(board: Board, row: Row) -> _Key:
    return f"{board.model} on {board.task}, recipe {board.recipe}", method_text(row), row.target


def _name(key: _Key) -> str:
    place, method, target, *setting = key
    return ", ".join(filter(None, (f"{place}: {method} {target}".rstrip(), *setting)))


def _speed_changes(old: _Side, new: _Side) -> Iterator[Change]:
    for key, theirs in old.times.items():
        ours = new.times.get(key, {})
        same = theirs.keys() & ours.keys()
        for was, now in [(m, m) for m in sorted(same)] or product(sorted(theirs), sorted(ours)):
            before, after = theirs[was], ours[now]
            direction: Direction
            if _reach(after)[1] < _reach(before)[0]:
                direction = "slower"
            elif _reach(after)[0] > _reach(before)[1]:
                direction = "faster"
            else:
                continue
            place = was if was == now else f"{was} → {now}"
            old_text, new_text = (f"{speedup_text(row)}, {row.compressed_ms:.3g} ms" for row in (before, after))
            counts = direction == "slower" and was == now
            where = f"{key[3]}, {place}"
            yield Change(_name(key[:3]), where, "speedup", old_text, new_text, direction, counts)


def _reach(row: Row) -> tuple[float, float]:
    """The interval of a speedup, widened by the noise floor as for its verdict."""
    return row.speedup_low / (1 + row.noise_floor), row.speedup_high * (1 + row.noise_floor)


def _model_changes(old: _Side, new: _Side) -> Iterator[Change]:
    for key, before in old.models.items():
        if (after := new.models.get(key)) is None:
            continue
        name, runtime = _name(key[:3]), key[3]
        if after.top1_drop_low > before.top1_drop_high:
            yield Change(name, runtime, "loss, points", loss_text(before), loss_text(after), "worse", True)
        elif after.top1_drop_high < before.top1_drop_low:
            yield Change(name, runtime, "loss, points", loss_text(before), loss_text(after), "better", False)
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
                yield Change(name, "", measure, *texts, "larger" if larger else "smaller", larger)


def _outcome_changes(old: _Side, new: _Side) -> Iterator[Change]:
    """What had a time and now ended without one, and the reverse; a model that is not made is said once."""
    ways: list[tuple[_Side, _Side, Direction]] = [(old, new, "worse"), (new, old, "better")]
    for one, other, direction in ways:
        seen = set()
        for key in one.times:
            made, timed = (*key[:3], ""), key
            for end_key in (made, timed):
                if key in other.times or end_key in seen or not (ends := other.ends.get(end_key)):
                    continue
                seen.add(end_key)
                shared = sorted(ends.keys() & one.times[key].keys())
                machine = shared[0] if shared else sorted(ends)[0]
                texts = ("ok", ends[machine]) if direction == "worse" else (ends[machine], "ok")
                counts = direction == "worse" and (end_key == made or bool(shared))
                place = ", ".join(filter(None, (end_key[3], machine if end_key == timed else "")))
                yield Change(_name(key[:3]), place, "outcome", *texts, direction, counts)


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
