"""From the frame of records to boards: one per task, model, recipe and machine, seeds taken together, ranked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement.runtimes import arithmetic_of
from lowrank_bench.record import TrialRecord
from lowrank_bench.reporting.boards.pareto import pareto_front
from lowrank_bench.reporting.boards.unranked import NOT_TIMED, UNRANKED_COLUMNS, unranked_rows, without_time
from lowrank_bench.reporting.frame.columns import SETTING, WHAT, Setting, What, setting_of, what_of
from lowrank_bench.reporting.frame.pooling import as_made, best_evidence, one_of_each_seed, pooled_row
from lowrank_bench.reporting.frame.practical import with_practical
from lowrank_bench.trial import CONTROL, is_met_by_timing

THRESHOLDS = (0.5, 1.0, 2.0)
"""Losses of top-1, in points, for which a board names the fastest; what loses none by chance would win at 0."""

# fmt: off
ROW_COLUMNS = [
    "task", "model", "recipe", "machine", "rank", "pareto", "method", "options", "target", "runtime", "threads",
    "batch", "arithmetic", "macs_ratio", "params_ratio", "bytes_ratio", "bytes", "top1_dense", "top1_before",
    "top1_after", "top1_drop", "top1_drop_low", "top1_drop_high", "top1_drop_least", "top1_drop_most", "seeds",
    "speedup", "speedup_low", "speedup_high", "speedup_most", "practical", "practical_low", "practical_high",
    "practical_runtime", "runtime_dense_ms", "reference", "reference_low", "reference_high", "headline", "realised",
    "verdict", "noise_floor", "unstable", "processes", "pairs_least", "pairs", "pairs_most", "stop_reason",
    "stopped_by_time", "load_least", "load_most", "dense_ms", "dense_p90_ms", "compressed_ms", "p90_ms",
    "images_per_s", "memory_mb", "runtime_error", "convert_s", "runtime_bytes", "decompose_s", "finetune_s", "images",
    "environment", "finished",
]
# fmt: on
SCOPE = ["task", "model", "recipe"]

Row = Any
"""A row of Board.rows, as pandas' itertuples gives it."""


@dataclass(frozen=True)
class Board:
    """One table: the models of one task, network and recipe, timed on one machine.

    ``rows`` has ROW_COLUMNS, a row per method, options, target and setting, in ranking order, the headline setting
    first; ``rank`` is NA for what loses more than ``max_loss`` points, for what has no known loss and for the control.
    ``unranked`` has UNRANKED_COLUMNS: all that did not end with a time, and why. ``records`` are the frame's rows
    behind both, ``timings`` those that the rows were made of; ``controls`` are the dense control's, a row for each of
    its seeds, wherever these were timed.
    """

    task: str
    model: str
    recipe: str
    machine: str
    max_loss: float
    rows: pd.DataFrame
    unranked: pd.DataFrame
    records: pd.DataFrame
    timings: pd.DataFrame
    controls: pd.DataFrame

    @property
    def name(self) -> str:
        """Such as ``charnet on chars36, recipe standard, bench-1``."""
        return f"{self.network}, {self.conditions}"

    @property
    def network(self) -> str:
        """Such as ``charnet on chars36``."""
        return f"{self.model} on {self.task}"

    @property
    def conditions(self) -> str:
        """Such as ``recipe standard, bench-1``."""
        return f"recipe {self.recipe}, {self.machine or NOT_TIMED}"

    @property
    def scored(self) -> bool:
        """Whether the accuracy of any row is known; a task without images has speed alone."""
        return _scored(self.rows)

    @property
    def settings(self) -> list[Setting]:
        """Runtime, threads and batch of the rows, the headline first."""
        return [*dict.fromkeys(self.rows[SETTING].itertuples(index=False, name=None))]

    def in_setting(self, setting: Setting) -> pd.DataFrame:
        """The rows of one setting, in ranking order."""
        runtime, threads, batch = setting
        rows = self.rows
        return rows[(rows["runtime"] == runtime) & (rows["threads"] == threads) & (rows["batch"] == batch)]

    @property
    def made(self) -> pd.DataFrame:
        """Of ``unranked`` what is not timed, yet a good model: by target, what loses least first."""
        rows = self.unranked[self.unranked["status"] == NOT_TIMED]
        return rows.sort_values(["target", "top1_drop", *WHAT], kind="stable")

    @property
    def lost(self) -> pd.DataFrame:
        """Of ``unranked`` what was refused or failed, some seeds of it or all."""
        return self.unranked[self.unranked["status"] != NOT_TIMED]

    def ends_without_time(self, setting: Setting | None = None) -> dict[What, list[str]]:
        """How what was tried ended that came to a time nowhere here; of one setting what could not be made, and what
        could not be timed in that one.
        """
        timed = {what_of(row) for row in rows_of(self.rows)}
        ends: dict[What, list[str]] = {}
        for row in rows_of(self.lost[self.lost["method"] != CONTROL]):
            there = setting is not None and not pd.isna(row.threads)
            counts = setting_of(row) == setting if there else what_of(row) not in timed
            if counts:
                ends.setdefault(what_of(row), []).append(str(row.status))
        return ends

    def models(self, trials: Mapping[str, TrialRecord]) -> dict[What, list[TrialRecord]]:
        """The trials that gave a model, by method, options and target; the lowest seed first."""
        known = set(self.records[[*WHAT, "trial"]].itertuples(index=False, name=None))
        found: dict[What, list[TrialRecord]] = {}
        for method, options, target, key in sorted(known):
            if key in trials and trials[key].size is not None:
                found.setdefault((method, options, target), []).append(trials[key])
        return {what: sorted(records, key=lambda record: record.trial.seed) for what, records in found.items()}

    def models_in(self, setting: Setting) -> Mapping[What, Row]:
        """The rows of one setting but the control's, by method, options and target."""
        rows = self.in_setting(setting)
        return {what_of(row): row for row in rows_of(rows) if row.method != CONTROL}

    def fastest(self, setting: Setting, max_loss: float) -> Row | None:
        """The row with the largest lower bound of its speedup among those that lose at most so many points; None where
        nothing is faster than the dense model beyond the noise.
        """
        rows = self.in_setting(setting)
        rows = rows[(rows["method"] != CONTROL) & (rows["verdict"] == "faster") & _within(rows, max_loss)]
        return max(rows_of(rows), key=lambda row: row.speedup_low, default=None)


def rows_of(table: pd.DataFrame) -> list[Row]:
    """The rows of a table, columns as attributes."""
    return [*table.itertuples(index=False)]


def make_boards(frame: pd.DataFrame, max_loss: float = 1.0) -> list[Board]:
    """Split the frame of ``load_records`` into boards, machines never mixed: those with accuracies first, the largest
    of them first, those without a time last, and else by name.

    A trial that was never timed belongs to every machine on which others of its board were. Rows rank by the lower
    bound of their speedup, those first that lose at most ``max_loss`` points of top-1. Raises InvalidInput for a
    ``max_loss`` that is not finite.
    """
    if not math.isfinite(max_loss):
        raise InvalidInput(f"max_loss must be a finite number of points, such as 1.0, got {max_loss}")
    boards = []
    known = frame[frame["task"] != ""]
    for scope, records in known.groupby(SCOPE):
        for machine in sorted(set(records["machine"]) - {""}) or [""]:
            here = records["machine"].isin([machine, ""])
            bound = records["target"].map(is_met_by_timing).astype(bool)
            boards.append(_board(tuple(map(str, scope)), machine, records[here], records[here | ~bound], max_loss))
    return sorted(boards, key=_order)


def _order(board: Board) -> tuple[bool, bool, int]:
    return board.rows.empty, not board.scored, -len(board.rows) if board.scored else 0


def _board(
    scope: tuple[str, ...], machine: str, records: pd.DataFrame, everywhere: pd.DataFrame, max_loss: float
) -> Board:
    """``everywhere``: the same models on other machines too, where those of further seeds may have been timed."""
    task, model, recipe = scope
    place = {"task": task, "model": model, "recipe": recipe, "machine": machine}
    timed = records[records["speedup"].notna()]
    models = {of: one_of_each_seed(group, machine) for of, group in as_made(everywhere).groupby(WHAT)}
    timings = {of: best_evidence(group) for of, group in timed.groupby([*WHAT, *SETTING])}
    rows = [
        place | pooled_row(group, group if _fewer_bits(of[3]) else models.get(of[:3], group))
        for of, group in timings.items()
    ]
    ranked = _ranked(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), max_loss)
    unranked = pd.DataFrame(unranked_rows(place, without_time(records, timed)), columns=list(UNRANKED_COLUMNS))
    behind = pd.concat([timed[:0], *timings.values()])
    controls = pd.concat([records[:0], *(group for of, group in models.items() if of[0] == CONTROL)])
    return Board(task, model, recipe, machine, max_loss, ranked, unranked, records, behind, controls)


def _ranked(rows: pd.DataFrame, max_loss: float) -> pd.DataFrame:
    if rows.empty:
        return rows
    order = {setting: place for place, setting in enumerate(_settings(rows))}
    control = rows["method"] == CONTROL
    within = ~control & _within(rows, max_loss)
    losses = rows["top1_drop"] if _scored(rows) else pd.Series(0.0, rows.index)
    place = [order[setting] for setting in rows[SETTING].itertuples(index=False, name=None)]
    rows = with_practical(rows, ["threads", "batch"], WHAT)
    rows = rows.assign(place=place, group=control * 2 + (~control & ~within), rank=within, pareto=False)
    rows = rows.sort_values(
        ["place", "group", "speedup_low", *WHAT], ascending=[True, True, False, True, True, True], kind="stable"
    )
    for _, setting in rows[rows["group"] < 2].groupby("place"):
        rows.loc[setting.index, "pareto"] = pareto_front(list(setting["speedup"]), list(losses[setting.index]))
    rank = rows["rank"].astype("Int64").groupby(rows["place"]).cumsum()
    rows["rank"] = rank.where(rows["group"] == 0)
    return rows[list(ROW_COLUMNS)].reset_index(drop=True)


def allowed(max_loss: float) -> float:
    """The limit to compare losses with: a mean of seeds that rounds to it is within it."""
    return max_loss + 1e-9


def _within(rows: pd.DataFrame, max_loss: float) -> pd.Series[bool]:
    """What loses at most so much; all where nothing was scored, as of a task without images."""
    if not _scored(rows):
        return pd.Series(True, rows.index)
    return rows["top1_drop"] <= allowed(max_loss)


def _scored(rows: pd.DataFrame) -> bool:
    return bool(rows["top1_after"].notna().any())


def _settings(rows: pd.DataFrame) -> list[Setting]:
    """The headline first: of the fewest threads and in float32, the setting in which the dense model itself takes least
    time per image, so that no speedup is owed to a slow baseline; then the others alike, fewer bits last.
    """
    times = rows["runtime_dense_ms"] / rows["batch"].astype("float64")
    per_image = times.groupby([rows[name] for name in SETTING]).first()
    settings = [(str(runtime), int(threads), int(batch)) for runtime, threads, batch in per_image.index]
    return sorted(settings, key=lambda s: (s[1], _fewer_bits(s[0]), float(per_image[s]), s))


def _fewer_bits(runtime: object) -> bool:
    return arithmetic_of(str(runtime)) != "float32"
