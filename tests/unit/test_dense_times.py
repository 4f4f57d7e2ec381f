"""Dense times of runtimes are compared within sessions: a slower hour moves neither reference nor choice."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from synthetic_records import measurement_record, trial, trial_record

from lowrank_bench.reporting.boards.board import make_boards
from lowrank_bench.reporting.boards.choice import free_choice, winner
from lowrank_bench.reporting.boards.networks_table import networks_grid
from lowrank_bench.reporting.frame.dense_times import sessions, with_dense_times
from lowrank_bench.reporting.frame.records_frame import to_frame

CONTROL = trial("identity")
MODELS = {method: trial(method, 4) for method in ("tucker", "jaderberg", "denton", "narrow")}
START = datetime(2026, 5, 4, 10, tzinfo=UTC)
REFERENCE = ["reference_low", "reference", "reference_high"]


def timed(of, speedup, runtime, dense_ms, hour=0.0):
    """A timing that ended so many hours after ten, in which the dense model took so long."""
    record = measurement_record(of, speedup, runtime=runtime)
    timing = record.timing.model_copy(update={"dense_ms": dense_ms, "compressed_ms": dense_ms / speedup})
    ended = (START + timedelta(hours=hour)).isoformat(timespec="seconds")
    return record.model_copy(update={"timing": timing, "finished": ended})


def quiet():
    """Dense takes 40 ms in onnxruntime, 44 in openvino and 46 in eager; all was timed within half an hour."""
    trials = [trial_record(of, 0.5 * (of is not CONTROL)) for of in (CONTROL, *MODELS.values())]
    times = [("onnxruntime", 40.0, 2.0), ("openvino", 44.0, 2.4), ("eager", 46.0, 1.5)]
    for minutes, (runtime, dense_ms, speedup) in enumerate(times):
        at = minutes / 6
        trials += [timed(CONTROL, 1.0, runtime, 0.995 * dense_ms, at)]
        trials += [timed(MODELS["tucker"], speedup, runtime, 1.005 * dense_ms, at)]
    return trials


def told(records):
    """By runtime what the frame says of the dense model, and what the board says of tucker."""
    frame = to_frame(records)
    rows = frame[frame["speedup"].notna()].drop_duplicates("runtime").set_index("runtime")
    (board,) = make_boards(frame)
    row = winner(free_choice(board, 1, 64))
    choice = row.method, row.runtime, row.practical, networks_grid([board], 1, 64)[0].cells[0][3].split()[1]
    return rows[["reference", "headline"]], choice, board.settings[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "eager"])
def test_a_session_in_which_the_machine_was_slower_moves_neither_the_reference_nor_the_choice(runtime):
    before, chosen, headline = told(quiet())
    assert before["reference"].to_dict() == pytest.approx({"onnxruntime": 1, "openvino": 40 / 44, "eager": 40 / 46})
    assert before["headline"].all()
    assert chosen == ("tucker", "openvino", pytest.approx(2.4 * 40 / 44), "onnxruntime")
    dense_ms = {"onnxruntime": 40.0, "openvino": 44.0, "eager": 46.0}[runtime]
    slow = [timed(MODELS[name], 1.2, runtime, 1.2 * dense_ms, hour=9) for name in ("jaderberg", "denton", "narrow")]
    after, still, first = told([*quiet(), *slow])
    pd.testing.assert_frame_equal(after, before, rtol=1e-5)
    assert still == (*chosen[:2], pytest.approx(chosen[2], rel=1e-5), chosen[3])
    assert first == headline == ("onnxruntime", 1, 64)


def test_runtimes_are_compared_through_a_third_one_where_no_session_has_both():
    day = [timed(CONTROL, 1.0, "onnxruntime", 40.0), timed(CONTROL, 1.0, "eager", 50.0)]
    night = [timed(MODELS["tucker"], 2.0, "eager", 60.0, 9), timed(MODELS["tucker"], 2.0, "openvino", 54.0, 9)]
    frame = to_frame([trial_record(CONTROL), trial_record(MODELS["tucker"]), *day, *night])
    found = frame[frame["runtime"] == "openvino"]["reference"].item()
    assert found == pytest.approx(40 / 45, rel=1e-5)  # a fifth slower at night, as eager tells


def test_where_no_session_joins_two_runtimes_the_spread_of_sessions_widens_the_interval_or_nothing_is_known():
    apart = [timed(of, 1.0, "onnxruntime", ms) for of, ms in ((CONTROL, 39.9), (MODELS["tucker"], 40.1))]
    apart += [timed(of, 1.0, "openvino", ms, 9) for of, ms in ((CONTROL, 43.9), (MODELS["tucker"], 44.1))]
    frame = to_frame([trial_record(CONTROL), trial_record(MODELS["tucker"]), *apart])
    low, value, high = frame[frame["runtime"] == "openvino"][REFERENCE].iloc[0]
    assert value == pytest.approx(40 / 44, rel=1e-4) and math.isnan(low) and math.isnan(high)
    slow = [timed(MODELS[name], 1.0, "onnxruntime", 44.0, 18) for name in ("jaderberg", "denton")]
    frame = to_frame([*map(trial_record, (CONTROL, *MODELS.values())), *apart, *slow])
    low, value, high = frame[frame["runtime"] == "openvino"][REFERENCE].iloc[0]
    assert high / low > 1.5 and low < 40 / 44 < high  # two sessions 10 % apart leave one degree of freedom


def test_many_rows_of_one_session_tell_no_more_of_a_runtime_than_one():
    def width(count):
        rows = frame_of([(runtime, 0, 40 + n % 2) for runtime in "ab" for n in range(count)])
        low, _, high = with_dense_times(rows).loc[rows["runtime"] == "b", REFERENCE].iloc[0]
        return math.log(high / low)

    assert width(60) == pytest.approx(2 * 3.182 * math.sqrt(2) * math.log(41 / 40) / 2, rel=0.02)
    assert width(6) > width(60)


def test_a_model_stands_in_the_runtime_whose_lower_end_is_largest():
    of = MODELS["jaderberg"]
    better = measurement_record(of, 2.1, width=0.3, runtime="onnxruntime")
    records = [*quiet(), better, timed(of, 2.2, "openvino", 44.0)]
    row = to_frame(records).set_index("key").loc[better.key]
    assert row["practical_runtime"] == "openvino" and row["practical"] == pytest.approx(2.2 * 40 / 44, rel=0.01)


def test_recipes_and_methods_share_what_is_known_of_the_dense_model():
    other = trial("tucker", 4, recipe="long")
    records = [*quiet(), trial_record(other), timed(other, 3.0, "openvino", 44.0, 0.1)]
    frame = to_frame(records)
    row = frame[(frame["recipe"] == "long") & frame["speedup"].notna()].iloc[0]
    assert row["practical"] == pytest.approx(3.0 * 40 / 44, rel=0.01)


def test_a_session_lasts_an_hour_from_its_first_timing_whatever_order_the_records_have():
    ended = pd.Series(
        ["2026-05-04T11:30:00+00:00", "2026-05-04T10:00:00+00:00", "2026-05-04T10:59:00+00:00", "no date"],
        index=[7, 3, 5, 9],
    )
    found = sessions(ended)
    assert found[3] == found[5] and found[7] != found[3] and [*found.index] == [7, 3, 5, 9]


def test_the_interval_holds_the_truth_where_sessions_hours_and_rows_scatter():
    random = np.random.default_rng(0)
    truth = {"a": 0.0, "b": math.log(1.1), "c": math.log(1.3)}
    held = []
    for _ in range(150):
        rows = []
        for hour in range(3):
            session = random.normal(0, 0.08)
            for runtime, level in truth.items():
                shared = level + session + random.normal(0, 0.02)  # what moved the machine meanwhile
                rows += [(runtime, 9 * hour, math.exp(shared + random.normal(0, 0.02))) for _ in range(6)]
        found = with_dense_times(frame_of(rows)).drop_duplicates("runtime").set_index("runtime")
        assert found["reference"].idxmax() == "a"
        held += [
            found.loc[name, "reference_low"] < math.exp(-truth[name]) < found.loc[name, "reference_high"]
            for name in "bc"
        ]
    assert np.mean(held) > 0.93


def frame_of(times):
    """Of runtime, hour and dense ms the columns that are looked at."""
    rows = pd.DataFrame(times, columns=["runtime", "hour", "dense_ms"])
    ended = [(START + timedelta(hours=hour)).isoformat() for hour in rows.pop("hour")]
    return rows.assign(task="t", model="m", machine="h", threads=1, batch=1, arithmetic="float32", finished=ended)
