"""Two sets of records: what moved is named, noise is not, and no machine is blamed for being another one."""

import sys

import pytest
from rich.console import Console
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record, write

from lowrank_bench import cli
from lowrank_bench.errors import InvalidRecord
from lowrank_bench.record import Status
from lowrank_bench.reporting.comparison import compare
from lowrank_bench.reporting.comparison_tables import comparison_terminal
from lowrank_bench.trial import Budget

TUCKER = trial("tucker", 4)
LATENCY = Budget(latency=2, runtime="onnxruntime", threads=1, batch=64)
CONTROL = trial_record(trial("identity"))


@pytest.fixture
def sides(tmp_path):
    """Write two sets of records; returns their folders."""

    def put(before, after):
        write(tmp_path / "before", before)
        write(tmp_path / "after", after)
        return tmp_path / "before", tmp_path / "after"

    return put


def one_row(speedup=2.0, width=0.01, loss=0.4, of=TUCKER, **fields):
    return [CONTROL, trial_record(of, loss), measurement_record(of, speedup, width, **fields)]


def moved(comparison):
    return [(change.measure, change.direction, change.regression) for change in comparison.changes]


def shown(comparison):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(comparison_terminal(comparison))
    return capture.get()


def test_a_set_of_records_does_not_differ_from_itself(sides):
    comparison = compare(*sides(sweep(seeds=(0, 1)), sweep(seeds=(0, 1))))
    assert comparison.changes == comparison.differences == comparison.only_before == comparison.only_after == []
    assert comparison.compared == 12
    assert "Nothing moved" in shown(comparison)


@pytest.mark.parametrize(
    ("before", "after", "width", "expected"),
    [
        (2.0, 1.8, 0.01, [("speedup", "slower", True)]),
        (1.8, 2.0, 0.01, [("speedup", "faster", False)]),
        (2.0, 1.8, 0.06, []),  # the intervals overlap
        (2.0, 1.95, 0.01, []),  # they lie apart by less than the noise floor of 0.4 % on either side
    ],
)
def test_a_speedup_moves_where_intervals_widened_by_the_noise_lie_apart(sides, before, after, width, expected):
    assert moved(compare(*sides(one_row(before, width), one_row(after, width)))) == expected


def test_a_loss_moves_where_its_intervals_lie_apart(sides):
    assert moved(compare(*sides(one_row(loss=0.4), one_row(loss=9.0)))) == [("loss, points", "worse", True)]
    assert moved(compare(*sides(one_row(loss=9.0), one_row(loss=0.4)))) == [("loss, points", "better", False)]
    assert moved(compare(*sides(one_row(loss=0.4), one_row(loss=0.5)))) == []


def test_a_size_moves_where_it_differs_at_all(sides):
    larger = trial_record(TUCKER, 0.4)
    size = larger.size.model_copy(update={"bytes": larger.size.bytes + 400, "macs": larger.size.macs - 90_000})
    after = [CONTROL, larger.model_copy(update={"size": size}), measurement_record(TUCKER, 2.0)]
    expected = [("bytes", "larger", True), ("MACs, share of dense", "smaller", False)]
    assert moved(compare(*sides(one_row(), after))) == expected


def test_a_difference_of_machines_is_shown_first_and_is_no_regression(sides):
    slow = [record.model_copy(update={"environment": {"cpu": "Other 1"}}) for record in one_row(1.2, machine="bench-2")]
    comparison = compare(*sides(one_row(2.0), slow))
    assert comparison.other_machines
    assert moved(comparison) == [("speedup", "slower", False)]
    text = shown(comparison)
    assert text.index("Other 1") < text.index("no regression") < text.index("bench-1 → bench-2")


def test_with_several_machines_each_is_compared_with_itself(sides):
    before = [*one_row(2.0), measurement_record(TUCKER, 5.0, machine="bench-2")]
    after = [*one_row(2.0), measurement_record(TUCKER, 3.0, machine="bench-2")]
    (change,) = compare(*sides(before, after)).changes
    assert (change.direction, change.regression) == ("slower", True)
    assert "bench-2" in change.setting and "bench-1" not in change.setting


def test_a_time_that_one_of_several_machines_lost_is_named(sides):
    there = measurement_record(TUCKER, 2.0, machine="bench-2")
    lost = measurement_record(TUCKER, status=Status.CRASHED, timing=None, reason="killed")
    comparison = compare(*sides([*one_row(), there], [*one_row()[:-1], lost, there]))
    assert moved(comparison) == [("outcome", "worse", True)]
    assert moved(compare(*sides([*one_row()[:-1], lost, there], [*one_row(), there]))) == [("outcome", "better", False)]


def test_what_another_machine_refused_by_its_own_times_is_no_regression_here(sides):
    here, there = (
        trial("tucker", None, budget=LATENCY, versions={"method": 1, "machine": number}) for number in (1, 2)
    )
    made = [trial_record(here, 0.5, environment={"machine": "m1"}), measurement_record(here, 2.0, machine="m1")]
    refused = failed_trial(there, Status.SKIPPED, "InvalidBudget: out of reach")
    refused = refused.model_copy(update={"environment": {"machine": "m2"}})
    found = compare(*sides([CONTROL, *made], [CONTROL, *made, refused]))
    assert moved(found) == []
    assert found.only_after and "m2" in found.only_after[0]


def test_what_no_longer_ends_well_is_worse_and_is_said_once(sides):
    lost = [*sweep()[:3], failed_trial(TUCKER, Status.CRASHED, "signal 11")]
    timed_twice = [*one_row(), measurement_record(TUCKER, 2.0, runtime="openvino")]
    comparison = compare(*sides(timed_twice, lost))
    assert moved(comparison) == [("outcome", "worse", True)]
    assert "signal 11" in comparison.changes[0].after
    assert moved(compare(*sides(lost, timed_twice))) == [("outcome", "better", False)]


def test_models_that_nobody_timed_are_compared_too(sides):
    untimed = [CONTROL, trial_record(TUCKER, 0.4)]
    worse = compare(*sides(untimed, [CONTROL, trial_record(TUCKER, 10.4)]))
    assert moved(worse) == [("loss, points", "worse", True)]
    assert (worse.compared, worse.models) == (0, 1)
    assert "0 timed rows and 1 models" in shown(worse)
    lost = compare(*sides(untimed, [CONTROL, failed_trial(TUCKER, Status.DIVERGED, "NaN in layer conv2")]))
    assert moved(lost) == [("outcome", "worse", True)]
    assert "NaN in layer conv2" in lost.changes[0].after


def test_a_seed_that_no_longer_ends_well_is_worse_though_others_still_do(sides):
    second = trial("tucker", 4, seed=1)
    before = [*one_row(), trial_record(trial("identity", seed=1)), trial_record(second, 0.4)]
    comparison = compare(*sides(before, [*before[:-1], failed_trial(second, Status.TIMEOUT, "7200 s")]))
    assert moved(comparison) == [("outcome", "worse", True)]
    assert comparison.changes[0].setting == "seed 1"


def test_losses_and_sizes_are_compared_over_the_seeds_that_both_sides_have(sides):
    second = trial("tucker", 4, seed=1)
    more = [*one_row(), trial_record(trial("identity", seed=1)), trial_record(second, 10.4)]
    assert moved(compare(*sides(one_row(), more))) == []
    worse = [*one_row(loss=30.4), more[3], trial_record(second, 30.4)]
    (change,) = compare(*sides(more, [*one_row(loss=12.4)])).changes
    assert (change.direction, change.setting) == ("worse", "seed 0")
    (change,) = compare(*sides(more, worse)).changes
    assert (change.direction, change.setting) == ("worse", "")
    apart = [CONTROL, *more[3:]]
    assert moved(compare(*sides(one_row(), apart)))[0][0] == "loss, points"


def test_a_control_that_no_longer_ends_well_is_worse(sides):
    failed = [failed_trial(trial("identity"), Status.CRASHED, "signal 9"), *one_row()[1:]]
    assert ("outcome", "worse", True) in moved(compare(*sides(one_row(), failed)))


def test_where_nothing_was_compared_it_is_said(sides, monkeypatch, capsys):
    folders = sides(one_row(), one_row(of=trial("jaderberg", 4)))
    assert "nothing was compared" in compare(*folders).notes[0]
    monkeypatch.setattr(sys, "argv", ["lowrank-bench", "compare", *map(str, folders), "--fail-on", "worse"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert int(ended.value.code or 0) == 2


def test_what_was_not_run_again_is_named_and_fails_nothing(sides):
    comparison = compare(*sides(sweep(), one_row(2.4)))
    assert len(comparison.only_before) == 11 + 1  # timed rows, and the model that was refused
    assert comparison.regressions() == []
    assert "charnet on chars36, recipe standard: jaderberg macs/8, onnxruntime 1t b64" in comparison.only_before


def test_versions_and_the_way_of_timing_are_among_the_differences(sides):
    new = trial("tucker", 4, versions={"method": 2})
    comparison = compare(*sides(one_row(), one_row(of=new, processes=5)))
    assert ("version of tucker", "none", "2") in comparison.differences
    assert ("processes", "1", "5") in comparison.differences
    assert comparison.compared == 1


def test_one_empty_side_is_said_and_the_other_is_still_shown(sides, tmp_path):
    comparison = compare(*sides([], one_row()))
    assert "before holds no readable record" in comparison.notes[0]
    assert comparison.only_after == ["charnet on chars36, recipe standard: tucker macs/4, onnxruntime 1t b64"]
    (tmp_path / "after" / "records.jsonl").write_text("")
    with pytest.raises(InvalidRecord, match="neither"):
        compare(tmp_path / "before", tmp_path / "after")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 0),
        (["--fail-on", "slower"], 1),
        (["--fail-on", "larger,worse"], 0),
        (["--fail-on", "worse", "--fail-on", "slower"], 1),
        (["--fail-on", "slow"], 2),
    ],
)
def test_the_exit_status_tells_a_ci_run_what_it_asked_for(sides, monkeypatch, capsys, options, status):
    folders = [str(folder) for folder in sides(one_row(2.0), one_row(1.5))]
    monkeypatch.setattr(sys, "argv", ["lowrank-bench", "compare", *folders, *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert int(ended.value.code or 0) == status
    assert "Traceback" not in capsys.readouterr().err
