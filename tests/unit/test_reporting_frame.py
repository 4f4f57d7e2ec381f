import math
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from synthetic_records import (
    DENSE_MACS,
    IMAGES,
    failed_trial,
    measurement_record,
    sweep,
    trial,
    trial_record,
    write,
)

from lowrank_bench.errors import InvalidRecord
from lowrank_bench.measurement.quality import pack_hits, paired_drop, unpack_hits
from lowrank_bench.record import RuntimeQuality, Status
from lowrank_bench.reporting.boards.board import make_boards, rows_of
from lowrank_bench.reporting.boards.pareto import pareto_front
from lowrank_bench.reporting.frame.columns import COLUMNS
from lowrank_bench.reporting.frame.records_frame import load_records, readable_environment, to_frame

PROMISED = """key task model method options budget recipe seed machine status reason params macs params_ratio macs_ratio
top1_dense top1_before top1_after top1_drop top1_drop_low top1_drop_high agreement runtime threads batch speedup
speedup_low speedup_high realised verdict dense_ms compressed_ms p90_ms memory_mb decompose_s finetune_s environment"""
TUCKER = trial("tucker", 4)
CONTROL = trial("identity")


def row_of(frame, **values):
    for name, value in values.items():
        frame = frame[frame[name] == value]
    (row,) = frame.to_dict("records")
    return row


def test_the_columns_that_users_were_promised_come_first_in_their_order(tmp_path):
    write(tmp_path, sweep())
    assert list(load_records(tmp_path).columns[: len(PROMISED.split())]) == PROMISED.split()


def test_a_measurement_carries_what_its_trial_came_to():
    records = [trial_record(CONTROL), trial_record(TUCKER, 0.5), measurement_record(TUCKER, 2.0)]
    row = row_of(to_frame(records), kind="measurement")
    assert (row["method"], row["budget"], row["runtime"], row["threads"], row["batch"]) == (
        "tucker",
        "macs/4",
        "onnxruntime",
        1,
        64,
    )
    assert (row["speedup"], row["speedup_low"], row["speedup_high"]) == pytest.approx((2.0, 1.98, 2.02))
    assert (row["macs"], row["macs_ratio"], row["realised"]) == (DENSE_MACS // 4, 4, 0.5)
    assert (row["decompose_s"], row["finetune_s"], row["stop_reason"]) == (1.5, 40.0, "precision")


def test_the_loss_is_counted_from_the_control_of_the_same_seed_and_its_interval_covers_it():
    controls = [trial_record(trial("identity", seed=seed), loss=seed) for seed in (0, 1)]
    tuckers = [trial_record(trial("tucker", 4, seed=seed), loss=1.5) for seed in (0, 1)]
    frame = to_frame([*tuckers, *controls])
    for seed, expected in ((0, 1.5), (1, 0.5)):
        row = row_of(frame, method="tucker", seed=seed)
        assert row["top1_drop"] == pytest.approx(expected)
        assert row["top1_dense"] - row["top1_after"] == pytest.approx(expected)
        assert row["top1_drop_low"] < expected < row["top1_drop_high"]


def test_the_control_loses_nothing_against_itself():
    row = row_of(to_frame([trial_record(CONTROL)]))
    assert (row["top1_drop"], row["top1_drop_low"], row["top1_drop_high"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("control", "note"),
    [
        ([], "no dense control"),
        ([trial_record(trial("identity", recipe="short"))], "no dense control"),
        ([failed_trial(CONTROL, Status.DIVERGED, "nan")], "no accuracy: diverged"),
    ],
)
def test_without_a_control_the_loss_is_unknown_and_the_note_says_why(control, note):
    row = row_of(to_frame([trial_record(TUCKER), *control]), method="tucker")
    assert pd.isna(row["top1_drop"])
    assert pd.isna(row["top1_dense"])
    assert note in row["note"]


def test_a_control_on_other_test_images_is_no_control():
    control = trial_record(CONTROL)
    regrouped = control.quality.model_copy(update={"group_sizes": None})
    frame = to_frame([control.model_copy(update={"quality": regrouped}), trial_record(TUCKER)])
    assert "other test images" in row_of(frame, method="tucker")["note"]


def test_where_a_control_has_its_test_images_in_larger_groups_those_are_resampled():
    control, made = trial_record(CONTROL), trial_record(TUCKER)
    sizes = control.quality.group_sizes
    pairs = [first + second for first, second in zip(sizes[::2], sizes[1::2], strict=True)]
    regrouped = control.quality.model_copy(update={"group_sizes": pairs})
    row = row_of(to_frame([control.model_copy(update={"quality": regrouped}), made]), method="tucker")
    hits, dense_hits = (unpack_hits(of.quality.hits_after, of.quality.images) for of in (made, control))
    found = tuple(row[name] for name in ("top1_drop", "top1_drop_low", "top1_drop_high"))
    assert found == paired_drop(dense_hits, hits, pairs)


def test_failures_and_what_was_never_timed_are_rows():
    refused, broken = trial("cp_nls", 4), trial("denton", 4)
    records = [
        failed_trial(refused, Status.SKIPPED, "no rank fits"),
        trial_record(broken),
        measurement_record(broken, status=Status.NOT_EXPORTABLE, reason="no such operator", timing=None),
        trial_record(TUCKER),
    ]
    frame = to_frame(records)
    assert row_of(frame, method="cp_nls")["reason"] == "no rank fits"
    lost = row_of(frame, method="denton")
    assert (lost["status"], lost["reason"], lost["macs_ratio"]) == ("not_exportable", "no such operator", 4)
    assert pd.isna(lost["speedup"])
    assert row_of(frame, method="tucker")["kind"] == "trial"


def test_the_last_record_of_a_key_counts():
    failed = failed_trial(TUCKER, Status.TIMEOUT, "600 s")
    slow, fast = measurement_record(TUCKER, 1.5), measurement_record(TUCKER, 2.5)
    row = row_of(to_frame([failed, slow, trial_record(TUCKER), fast]))
    assert (row["status"], row["macs_ratio"], row["speedup"]) == ("ok", 4, 2.5)


def test_a_raised_version_replaces_the_older_one_and_its_measurements():
    new = trial("tucker", 4, versions={"tucker": 2})
    old = trial("tucker", 4, versions={"tucker": 1})
    records = [trial_record(old), measurement_record(old, 9.0), trial_record(new), measurement_record(new, 2.0)]
    assert row_of(to_frame(records))["speedup"] == 2.0


def test_networks_of_one_name_that_two_machines_trained_keep_their_rows():
    """Merged, each machine's board has the models of its own network; trained again on one machine, the last counts."""

    def made(number, machine, loss, version=1):
        versions = {"method": version, "brought": number}
        dense = trial("identity", versions={"method": 1, "brought": number})
        here = {"environment": {"machine": machine}}
        compressed = trial("tucker", 4, versions=versions)
        timed = [measurement_record(of, 2.0 + number, machine=machine, **here) for of in (dense, compressed)]
        return [trial_record(dense, **here), trial_record(compressed, loss, **here), *timed]

    def losses(*records):
        boards = make_boards(to_frame([*chain.from_iterable(records)]))
        return {
            board.machine: [row.top1_drop for row in rows_of(board.rows) if row.method == "tucker"] for board in boards
        }

    first, second = made(1, "m1", 0.5), made(2, "m2", 1.5)
    for records in ((first, second), (second, first)):
        assert losses(*records) == {"m1": [pytest.approx(0.5)], "m2": [pytest.approx(1.5)]}
    assert losses(first, made(2, "m1", 1.5)) == {"m1": [pytest.approx(1.5)]}
    assert losses(first, made(2, "m2", 1.5, version=2))["m1"] == []


def test_no_loss_is_counted_from_a_control_of_other_versions():
    def of(name, ratio=None, **versions):
        return trial(name, ratio, versions={"method": 1, "recipe": 1} | versions)

    controls = [trial_record(of("identity")), trial_record(of("identity", recipe=2), loss=3.0)]
    frame = to_frame([*controls, trial_record(of("tucker", 4, method=7), 0.5)])
    assert row_of(frame, method="tucker")["top1_drop"] == pytest.approx(0.5)  # from the older one, which is its own
    row = row_of(to_frame([controls[1], trial_record(of("tucker", 4), 0.5)]), method="tucker")
    assert pd.isna(row["top1_drop"])
    assert "versions" in row["note"]


def test_models_made_for_two_machines_are_two_models():
    here, there = (trial("tucker", 4, versions={"method": 1, "machine": number}) for number in (1, 2))
    records = [trial_record(CONTROL.model_copy(update={"versions": {"method": 1}}))]
    for number, of in enumerate((here, there)):
        records += [trial_record(of, 0.5), measurement_record(of, 2.0 + number, machine=f"m{number}")]
    frame = to_frame(records)
    timed = frame[frame["kind"] == "measurement"]
    assert dict(zip(timed["machine"], timed["speedup"], strict=True)) == {"m0": 2.0, "m1": 3.0}
    assert timed["top1_drop"].tolist() == pytest.approx([0.5, 0.5])


def test_a_model_that_only_one_machine_can_have_made_is_on_that_machines_board_alone():
    """A budget in latency is met by a machine's own times; what it came to elsewhere is another trial."""
    here, there = (trial("tucker", 4, versions={"method": 1, "machine": number}) for number in (1, 2))
    control = trial_record(CONTROL.model_copy(update={"versions": {"method": 1}}))
    records = [control, trial_record(here, 0.5, environment={"machine": "m1"})]
    records += [measurement_record(of, 2.0, machine=machine) for of, machine in ((here, "m1"), (CONTROL, "m2"))]
    refused = failed_trial(there, Status.SKIPPED, "InvalidBudget: out of reach")
    records.append(refused.model_copy(update={"environment": {"machine": "m2"}}))
    boards = make_boards(to_frame(records))
    told = {board.machine: int((board.unranked["method"] == "tucker").sum()) for board in boards}
    assert told == {"m1": 0, "m2": 1}


def test_what_a_hasty_timing_found_is_not_taken_for_what_a_thorough_one_did():
    hasty, thorough = (measurement_record(TUCKER, speedup, processes=n) for speedup, n in ((3.0, 1), (2.0, 5)))
    other = trial("jaderberg", 4)
    records = [trial_record(CONTROL), trial_record(TUCKER, 0.5), trial_record(other, 0.5)]
    frame = to_frame([*records, thorough, hasty, measurement_record(other, 2.5, processes=5)])
    rows = frame.set_index("key")
    assert rows.loc[thorough.key, "practical"] == pytest.approx(2.0)
    assert pd.isna(rows.loc[hasty.key, "practical"])


def test_of_two_timings_from_as_many_processes_the_quieter_counts_then_the_later_whatever_they_found():
    def timed(speedup, seconds, floor, hour):
        record = measurement_record(TUCKER, speedup, processes=5, max_seconds=seconds)
        timing = record.timing.model_copy(update={"noise_floor": floor})
        return record.model_copy(update={"timing": timing, "finished": f"2026-05-04T{hour}:00:00+00:00"})

    def counts(*records):
        frame = to_frame([trial_record(CONTROL), trial_record(TUCKER, 0.5), *records])
        (board,) = make_boards(frame)
        assert frame["practical"].max() == pytest.approx(board.rows["speedup"].item())
        return board.rows["speedup"].item()

    for fast, slow in ((2.0, 3.0), (3.0, 2.0)):
        quiet, loud = timed(fast, 4.0, 0.01, 10), timed(slow, 8.0, 0.02, 11)
        assert counts(quiet, loud) == counts(loud, quiet) == fast
        late = timed(slow, 8.0, 0.01, 11)
        assert counts(quiet, late) == counts(late, quiet) == slow


def test_a_measurement_without_its_trial_is_a_row_that_says_so():
    row = row_of(to_frame([measurement_record(TUCKER, 2.0)]))
    assert "trial is not among the records" in row["note"]
    assert (row["speedup"], row["task"]) == (2.0, "")


def test_a_damaged_line_is_passed_over_with_a_warning_and_an_empty_folder_is_an_error(tmp_path):
    write(tmp_path / "good", sweep())
    path = tmp_path / "good" / "records.jsonl"
    path.write_text(path.read_text() + '{"kind": "trial", "ke')
    with pytest.warns(UserWarning, match="half-written"):
        frame = load_records(tmp_path / "good")
    assert len(frame) == 15
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRecord, match="no readable record"):
        load_records(tmp_path / "empty")


def test_every_column_has_its_type_even_where_nothing_was_measured():
    for frame in (to_frame(sweep()), to_frame([failed_trial(TUCKER, Status.FAILED, "")])):
        for name, kind in COLUMNS.items():
            assert frame[name].dtype == pd.Series([], dtype=kind).dtype, name


def test_the_environment_is_one_line_without_what_passes():
    environment = {"cpu": "Xeon", "packages": {"torch": "2.15", "openvino": None}, "load": 0.7, "governor": None}
    assert readable_environment(environment) == "cpu: Xeon; torch: 2.15"


def test_the_front_is_what_nothing_beats_in_both():
    nan = float("nan")
    speedups, losses = [2.0, 3.0, 2.5, 0.9, 0.9, nan, 4.0], [0.1, 1.0, 1.2, 0.5, -0.5, 0.0, nan]
    assert pareto_front(speedups, losses) == [True, True, False, False, True, False, False]


def test_practical_is_the_fastest_dense_runtime_over_the_models_fastest_and_slow_dense_runtimes_carry_no_headline():
    # Dense takes 40 ms in onnxruntime, 44 in openvino and 70 in eager.
    records = [trial_record(CONTROL), trial_record(TUCKER, 0.5), measurement_record(TUCKER, 4.0, runtime="eager")]
    records += [measurement_record(CONTROL, 1.0, runtime=runtime) for runtime in ("eager", "onnxruntime", "openvino")]
    records += [measurement_record(TUCKER, 2.0), measurement_record(TUCKER, 2.0, runtime="openvino")]
    records += [measurement_record(TUCKER, 2.0, threads=2, runtime="eager")]
    frame = to_frame(records)
    here = frame[frame["threads"] == 1]
    assert here[here["method"] == "tucker"]["practical"].tolist() == pytest.approx([40 / (70 / 4)] * 3)
    assert here[here["method"] == "identity"]["practical"].tolist() == pytest.approx([1.0] * 3)
    counts = {runtime: set(rows["headline"]) for runtime, rows in here.groupby("runtime")}
    assert counts == {"eager": {False}, "onnxruntime": {True}, "openvino": {True}}
    alone = row_of(frame, threads=2)
    assert (alone["practical"], alone["headline"]) == (pytest.approx(2.0), True)
    own = alone["speedup_low"], alone["speedup_high"]
    assert (alone["practical_low"], alone["practical_high"]) == pytest.approx(own, rel=1e-3)


def test_the_interval_of_practical_joins_the_speedups_and_that_of_the_dense_times():
    # Of the two runtimes, each with two dense times, one is the dense model's fastest and the other the compressed
    # one's. Four times about two means leave two degrees of freedom; each runtime's times count as one.
    def timed(of, speedup, runtime, dense_ms):
        record = measurement_record(of, speedup, runtime=runtime)
        return record.model_copy(update={"timing": record.timing.model_copy(update={"dense_ms": dense_ms})})

    records = [trial_record(CONTROL), trial_record(TUCKER, 0.5)]
    records += [timed(CONTROL, 1.0, "onnxruntime", 39.0), timed(TUCKER, 2.0, "onnxruntime", 41.0)]
    records += [timed(CONTROL, 1.0, "eager", 49.0), timed(TUCKER, 4.0, "eager", 51.0)]
    row = row_of(to_frame(records), method="tucker", runtime="onnxruntime")
    scatter = math.hypot(math.log(41 / 39), math.log(51 / 49)) / 2
    half = math.hypot(math.log(1.01 / 0.99) / 2, 4.3027 * math.sqrt(2) * scatter)
    middle = 4.0 * math.sqrt(39 * 41 / (49 * 51))
    found = [row[name] for name in ("practical_low", "practical", "practical_high")]
    assert found == pytest.approx([middle / math.exp(half), middle, middle * math.exp(half)], rel=1e-3)


def test_a_time_carries_the_check_of_its_output_and_what_conversion_took_and_gave():
    row = row_of(to_frame([trial_record(TUCKER), measurement_record(TUCKER, 2.0)]), kind="measurement")
    assert (row["runtime_error"], row["convert_s"], row["runtime_bytes"]) == (1e-6, 0.1, 2_400_000)


def test_a_runtime_of_fewer_bits_carries_its_own_top_1_and_what_the_bits_alone_bring():
    # Dense takes 40 ms in onnxruntime and 16 in int8, where the control gets 1 % of the images wrong that were right.
    right = unpack_hits(trial_record(CONTROL).quality.hits_after, IMAGES)
    right[np.flatnonzero(right)[:20]] = False
    judged = RuntimeQuality(images=IMAGES, top1=100 * right.mean(), hits=pack_hits(right), calibration_images=256)
    eight_bits = {"runtime": "onnxruntime-int8"}
    records = [trial_record(CONTROL), trial_record(TUCKER, 0.5)]
    records += [measurement_record(CONTROL, 1.0), measurement_record(TUCKER, 2.0)]
    records += [measurement_record(CONTROL, 1.0, quality=judged, **eight_bits)]
    records += [measurement_record(TUCKER, 1.5, quality=judged, **eight_bits)]
    frame = to_frame(records)
    control = row_of(frame, method="identity", **eight_bits)
    assert control["top1_drop"] == pytest.approx(1.0)
    assert control["top1_drop_low"] <= 1.0 <= control["top1_drop_high"]
    assert (control["arithmetic"], control["practical"]) == ("int8", pytest.approx(40 / 16))
    both = row_of(frame, method="tucker", **eight_bits)
    assert (both["practical"], both["top1_after"]) == (pytest.approx(1.5 * 40 / 16), pytest.approx(judged.top1))
    plain = row_of(frame, method="tucker", runtime="onnxruntime")
    assert (plain["arithmetic"], plain["practical"], plain["top1_drop"]) == ("float32", 2.0, pytest.approx(0.5))
    assert frame[frame["threads"].notna()]["headline"].all()  # within its own arithmetic, each is the fastest
    (board,) = make_boards(frame)
    assert board.settings[0] == ("onnxruntime", 1, 64)
    shown = {(row.method, row.runtime): row for row in rows_of(board.rows)}
    assert shown["tucker", "onnxruntime-int8"].top1_after == pytest.approx(judged.top1)
    assert shown["tucker", "onnxruntime"].top1_drop == pytest.approx(0.5)
    assert shown["identity", "onnxruntime-int8"].practical == pytest.approx(2.5)


def test_a_model_that_was_timed_in_fewer_bits_alone_keeps_its_own_accuracy_in_a_row_of_its_own():
    judged = RuntimeQuality(images=IMAGES, top1=0.0, hits=pack_hits(np.zeros(IMAGES, bool)), calibration_images=256)
    timed = measurement_record(TUCKER, 2.0, runtime="onnxruntime-int8", quality=judged)
    frame = to_frame([trial_record(CONTROL), trial_record(TUCKER, 0.5), timed])
    assert row_of(frame, method="tucker", kind="trial")["top1_drop"] == pytest.approx(0.5)
    assert row_of(frame, method="tucker", kind="measurement")["top1_after"] == 0.0


def test_seconds_of_making_a_model_do_not_stand_beside_times_of_another_machine():
    of = trial("tucker", 4)
    records = [trial_record(of), measurement_record(of), measurement_record(of, machine="bench-2")]
    here, there = to_frame(records)[["machine", "decompose_s", "finetune_s"]].itertuples(index=False, name=None)
    assert here == ("bench-1", 1.5, 40.0)
    assert there[0] == "bench-2" and math.isnan(there[1]) and math.isnan(there[2])
