"""One of two sets of records that are compared: its times, models and failures, by what both sets share."""

from __future__ import annotations

import pandas as pd

from lowrank_bench.record import MeasurementRecord, Status, TrialRecord
from lowrank_bench.reporting.boards.board import SCOPE, Row, make_boards, rows_of
from lowrank_bench.reporting.boards.cells import method_text, where_text
from lowrank_bench.reporting.frame.columns import WHAT
from lowrank_bench.reporting.frame.pooling import as_made, one_of_each_seed
from lowrank_bench.reporting.frame.records_frame import to_frame
from lowrank_bench.trial import CONTROL, is_met_by_timing

Key = tuple[str, ...]
"""A board without its machine, a method, a target; and a setting, or a runtime, where one is meant."""
OK = str(Status.OK)


class Side:
    """One set of records.

    ``times``: the timed rows, by key with setting, then by machine. ``untimed``: how measurements without a time ended,
    likewise. ``models``: a row for each seed that was made, timed or not, by key with the runtime where that computes
    in fewer bits and so has an accuracy of its own, else with "". ``trials``: how each ended, by key, then by seed.
    """

    def __init__(self, records: list[TrialRecord | MeasurementRecord]) -> None:
        self.times: dict[Key, dict[str, Row]] = {}
        self.untimed: dict[Key, dict[str, str]] = {}
        self.models: dict[Key, pd.DataFrame] = {}
        self.trials: dict[Key, dict[int, str]] = {}
        self.machines: set[str] = set()
        if not records:
            return
        frame = to_frame(records)
        frame = frame[frame["task"] != ""]
        bound = frame["target"].map(is_met_by_timing).astype(bool)
        frame.loc[bound, "target"] += " on " + frame.loc[bound, "machine"]
        made = as_made(frame)
        judged_there = frame[frame["top1_after"].notna() & ~frame["arithmetic"].isin(["", "float32"])]
        judged_there = judged_there.sort_values("machine", kind="stable")  # processors differ in what fewer bits do
        for runtime, rows in [("", made), *judged_there.groupby("runtime")]:
            for _, group in rows[rows["method"] != CONTROL].groupby([*SCOPE, *WHAT]):
                models = one_of_each_seed(group)
                self.models[(*_key(rows_of(models)[0]), str(runtime))] = models
        for row in rows_of(frame.drop_duplicates("trial")):
            end = OK if row.kind == "measurement" else _end(row)  # only what was made is measured
            self.trials.setdefault(_key(row), {})[row.seed] = end
        for board in make_boards(frame):
            self.machines |= {board.machine} - {""}
            for row in rows_of(board.rows[board.rows["method"] != CONTROL]):
                self.times.setdefault((*_key(row), where_text(row)), {})[board.machine] = row
            for row in rows_of(board.unranked[board.unranked["runtime"] != ""]):
                self.untimed.setdefault((*_key(row), where_text(row)), {})[board.machine] = _end(row)

    def lacking(self, other: Side) -> list[Key]:
        """Its timed rows, and its models that were never timed, that the other set lacks."""
        timed = {key[:3] for key in self.times}
        rows = [key for key in self.times if key not in other.times]
        models = [key for key in self.trials if key not in other.trials and key not in timed]
        return rows + [key for key in models if key[1] != CONTROL]


def _key(row: Row) -> Key:
    return f"{row.model} on {row.task}, recipe {row.recipe}", method_text(row), row.target


def _end(row: Row) -> str:
    return ": ".join(filter(None, (row.status, row.reason)))
