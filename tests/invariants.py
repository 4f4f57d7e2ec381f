"""What holds of a results folder at every moment, whatever was killed before."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from lowrank_bench.compression.model import PLAN, WEIGHTS
from lowrank_bench.reading import read_records
from lowrank_bench.record import RECORD, Status, TrialRecord
from lowrank_bench.store import FILE_NAME


def lines(folder: Path) -> list[bytes]:
    """The finished lines of the records."""
    path = folder / FILE_NAME
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def check_cut_off(folder: Path, before: list[bytes]) -> list[bytes]:
    """After a kill: nothing recorded before is gone or changed, every finished line is a record, none is doubled, and
    what a plan stands for is whole. Returns the finished lines.
    """
    now = lines(folder)
    assert now[: len(before)] == before, "what was recorded before is there, unchanged"
    keys = [RECORD.validate_json(line).key for line in now]
    assert max(Counter(keys).values(), default=0) <= 1, "no record is doubled"
    for plan in (folder / "models").glob(f"*/{PLAN}"):
        json.loads(plan.read_text())
    return now


def check_finished(folder: Path, wanted: Collection[str], real: bool = False) -> None:
    """At the end: one record for each key, each with its model, and no draft or half-finished stage."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_records(folder)
    assert Counter(record.key for record in records) == Counter(wanted), "nothing is lost, nothing is doubled"
    for record in records:
        if isinstance(record, TrialRecord) and record.status is Status.OK:
            kept = folder / "models" / record.key
            assert (kept / PLAN).exists() and (not real or (kept / WEIGHTS).exists())
    left = [path for pattern in (".*.draft", "*.stages") for path in folder.rglob(pattern)]
    assert not left, left
