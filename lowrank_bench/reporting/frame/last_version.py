"""Which records count of those whose nouns differ in their versions only."""

from __future__ import annotations

from collections.abc import Iterable

from lowrank_bench.record import MeasurementRecord, TrialRecord
from lowrank_bench.trial import BROUGHT, MACHINE


def last_trials(records: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    """By key, in order: the one that was recorded last. Another machine is no other version, nor is a network of that
    name which another machine trained: of each machine's the last one stays.
    """
    alike: dict[str, list[TrialRecord]] = {}
    for record in records:
        lasting = {name: number for name, number in record.trial.versions.items() if name == MACHINE}
        alike.setdefault(record.trial.model_copy(update={"versions": lasting}).key, []).append(record)
    return {record.key: record for group in alike.values() for record in _of_each_machine(group)}


def last_measurements(records: Iterable[MeasurementRecord]) -> dict[str, MeasurementRecord]:
    """By key, in order: the one that was recorded last."""
    last = {record.measurement.model_copy(update={"version": 0}).key: record for record in records}
    return {record.key: record for record in last.values()}


def machine_of(record: TrialRecord | MeasurementRecord) -> str:
    """Where it was recorded; empty where it does not say so."""
    return str(record.environment.get("machine", ""))


def _of_each_machine(records: list[TrialRecord]) -> Iterable[TrialRecord]:
    """Of a network that users brought every machine's last record that has the declared versions of the very last one;
    else that one alone.
    """
    last = records[-1]
    if BROUGHT not in last.trial.versions or not machine_of(last):
        return [last]
    alike = (record for record in records if machine_of(record) and _declared(record) == _declared(last))
    return {machine_of(record): record for record in alike}.values()


def _declared(record: TrialRecord) -> dict[str, int]:
    """The versions without the checksum of what the user brought."""
    return {name: number for name, number in record.trial.versions.items() if name != BROUGHT}
