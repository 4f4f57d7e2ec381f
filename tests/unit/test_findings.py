"""The findings say of the records which method wins, how sure that is, and what became of the MACs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from synthetic_records import measurement_record, sweep, trial, trial_record

from lowrank_bench.reporting.board import make_boards
from lowrank_bench.reporting.findings import findings_markdown
from lowrank_bench.reporting.records_frame import to_frame
from lowrank_bench.reporting.report import summary_board
from lowrank_bench.trial import Budget

CONTROLS = [trial("identity", seed=seed) for seed in (0, 1)]
AT_MOST_1 = "losing at most 1 point"


def page(records: list[Any]) -> str:
    return findings_markdown(make_boards(to_frame(records)), [])


def cells(text: str, start: str) -> list[str]:
    """Of the only table row that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def made(method: str, speedup: float, loss: float = 0.0, seeds: tuple[int, ...] = (0, 1), **fields: Any) -> list[Any]:
    """Models of a method at 4x over the seeds, all of which lose the same, the first of which is timed."""
    models = [trial(method, 4, seed=seed) for seed in seeds]
    return [*(trial_record(of, loss) for of in models), measurement_record(models[0], speedup, **fields)]


def controls() -> list[Any]:
    return [*map(trial_record, CONTROLS), measurement_record(CONTROLS[0], 1.0, 0.003)]


def unstable(record: Any) -> Any:
    return record.model_copy(update={"timing": record.timing.model_copy(update={"unstable": True})})


def test_at_each_loss_the_fastest_stands_beside_the_next_method() -> None:
    row = cells(page(sweep()), "losing at most 2 points")
    assert row[1:4] == ["jaderberg macs/8", "onnxruntime", "5.20 [5.15, 5.25]"]
    assert row[5:7] == ["tucker macs/8", "onnxruntime"]
    lead = [float(number) for number in re.findall(r"[\d.]+", row[7])]
    assert lead == [1.44, 1.42, 1.47]  # 5.2 / 3.6, and the ends that are 1 % worse and better on both sides


def test_above_its_board_the_readme_says_who_wins_by_how_much_and_how_sure_that_is() -> None:
    text = summary_board(to_frame(sweep()))
    said = [line for line in text.splitlines() if "Fastest losing at most" in line]
    for line, limit in zip(said, ("0.5 points", "1 point", "2 points"), strict=True):
        found = cells(page(sweep()), f"losing at most {limit}")
        assert line.startswith(
            f"- Fastest losing at most {limit}: {found[1]} in {found[2]}, practical speedup {found[3]}, "
            f"{found[4]} points lost; "
        )
        assert line.endswith(f"; {found[8]}")
    assert text.index(said[-1]) < text.index("| Method |")


def test_the_winner_is_who_gains_most_over_the_fastest_dense_runtime_whatever_runtime_it_was_timed_in() -> None:
    fast = trial("jaderberg", 8)  # never timed in the setting in which the dense model is fastest
    elsewhere = [measurement_record(of, s, runtime="openvino") for of, s in ((CONTROLS[0], 1.0), (fast, 4.4))]
    records = [*controls(), *made("tucker", 2.4), trial_record(fast), *elsewhere]
    row = cells(page(records), AT_MOST_1)
    assert row[1:3] == ["jaderberg macs/8", "openvino"]
    assert row[3].startswith("4.00")  # 44 ms dense there against 40 in onnxruntime
    assert row[5] == "tucker macs/4"
    first, second = [line for line in summary_board(to_frame(records)).splitlines() if line.startswith("|")][2:4]
    assert first.startswith("| jaderberg | macs/8 | 4.00 ") and "| openvino | 4.40 [" in first
    assert second.startswith("| tucker | macs/4 | 2.40 [")


def test_threads_and_batches_are_never_compared_with_each_other() -> None:
    two = [measurement_record(of, s, threads=2) for of, s in ((CONTROLS[0], 1.0), (trial("jaderberg", 4), 9.0))]
    text = page([*controls(), *made("tucker", 2.4), trial_record(trial("jaderberg", 4)), *two])
    first, second = text.split(", 2 threads, batch 64")
    assert "1 thread, batch 64" in first
    assert cells(first, AT_MOST_1)[1] == "tucker macs/4" and cells(second, AT_MOST_1)[1] == "jaderberg macs/4"


@pytest.mark.parametrize(
    ("best", "second", "verdict"),
    [
        ({}, {"speedup": 2.5}, "sure at 95 %"),
        ({}, {"speedup": 2.98}, "tucker may be as fast"),
        ({"loss": 0.9}, {"speedup": 2.5}, "the loss may be larger"),
        ({"seeds": (0,)}, {"speedup": 2.5}, "one seed"),
        ({"loss": 0.9, "seeds": (0,)}, {"speedup": 2.5}, "the loss may be larger; one seed"),
    ],
)
def test_no_winner_is_sure_whose_lead_or_loss_is_within_the_noise_or_of_one_seed(
    best: dict[str, Any], second: dict[str, Any], verdict: str
) -> None:
    records = [*controls(), *made("jaderberg", 3.0, **best), *made("tucker", **second)]
    assert cells(page(records), AT_MOST_1)[-1] == verdict


def test_no_winner_is_sure_while_any_other_method_may_be_as_fast() -> None:
    wide = made("denton", 2.0, width=0.6)  # third by its lower end, and its upper end is beyond the winner's
    records = [*controls(), *made("jaderberg", 3.0), *made("tucker", 2.5), *wide]
    row = cells(page(records), AT_MOST_1)
    assert row[5] == "tucker macs/4"
    assert row[-1] == "denton may be as fast"


def test_no_winner_is_sure_whose_processes_disagree_and_it_is_said_wherever_its_speedup_stands() -> None:
    best = made("jaderberg", 3.0)
    records = [*controls(), *best[:-1], unstable(best[-1]), *made("tucker", 2.5)]
    assert cells(page(records), AT_MOST_1)[-1] == "unstable"
    assert "faster, unstable" in summary_board(to_frame(records))


def shaky(record: Any, floor: float = 0.004, fastest: float | None = None) -> Any:
    """With that noise floor, and, where a fastest process is given, processes that disagree."""
    processes = [process.model_copy(update={"ratio": fastest or process.ratio}) for process in record.timing.processes]
    update = {"noise_floor": floor, "unstable": fastest is not None, "processes": processes}
    return record.model_copy(update={"timing": record.timing.model_copy(update=update)})


@pytest.mark.parametrize(
    ("best", "second", "verdict"),
    [
        ({}, {}, "sure at 95 %"),
        ({"floor": 0.23}, {}, "tucker may be as fast"),
        ({}, {"floor": 0.23}, "tucker may be as fast"),
        ({"floor": 0.1}, {"floor": 0.1}, "tucker may be as fast"),
        ({"floor": 0.05}, {"floor": 0.05}, "sure at 95 %"),
        ({}, {"fastest": 3.1}, "tucker may be as fast"),
        ({}, {"fastest": 2.7}, "sure at 95 %"),
    ],
)
def test_no_winner_is_sure_whose_lead_is_within_the_noise_floors_or_what_an_unstable_rival_reached(
    best: dict[str, Any], second: dict[str, Any], verdict: str
) -> None:
    first, other = made("jaderberg", 3.0), made("tucker", 2.5)
    records = [*controls(), *first[:-1], shaky(first[-1], **best), *other[:-1], shaky(other[-1], **second)]
    assert cells(page(records), AT_MOST_1)[-1] == verdict


def test_in_one_runtime_a_lead_is_as_sure_as_the_speedups_however_little_is_known_of_the_dense_reference() -> None:
    first = made("jaderberg", 3.0, runtime="openvino")
    noisy = [measurement_record(of, 1.0, runtime="openvino") for of in CONTROLS]
    times = [{"dense_ms": dense_ms, "compressed_ms": dense_ms} for dense_ms in (40.0, 48.0)]
    timings = [record.timing.model_copy(update=time) for record, time in zip(noisy, times, strict=True)]
    noisy = [record.model_copy(update={"timing": timing}) for record, timing in zip(noisy, timings, strict=True)]
    row = cells(page([*controls(), *noisy, *first, *made("tucker", 2.5, runtime="openvino")]), AT_MOST_1)
    assert row[2] == row[6] == "openvino"
    assert float(row[7].split("[")[1].split(",")[0]) < 1  # the ends of the practical intervals reach each other
    assert row[-1] == "sure at 95 %"


def test_a_field_of_one_is_not_won_and_where_no_loss_is_known_time_alone_is_judged() -> None:
    assert cells(page([*controls(), *made("tucker", 3.0)]), AT_MOST_1)[-1] == "no other method there"
    fast, slow = (trial(method, 4, task="speed", recipe="none") for method in ("tucker", "jaderberg"))
    records = [trial_record(of, quality=None) for of in (fast, slow)]
    records += [measurement_record(of, speedup) for of, speedup in ((fast, 3.0), (slow, 2.0))]
    assert cells(page(records), "at macs/4")[-1] == "sure at 95 % of the time alone"


def test_the_page_names_processor_and_versions_once() -> None:
    assert page(sweep()).count("- Environment: cpu: Testor 9000; cores: 2; os: Linux 6.1; torch: 2.15.0") == 1


def test_what_is_not_faster_than_the_noise_wins_nothing() -> None:
    text = page([*controls(), *made("tucker", 1.001)])
    assert "Which method wins" not in text
    assert cells(text, "tucker")[2:] == ["1", "25%", "25% to 25%", "1"]


def test_promise_and_delivery_are_listed_by_method_in_the_headline_setting_only() -> None:
    text = page(sweep())
    assert cells(text, "tucker")[1:] == ["onnxruntime 1t b64", "2", "52%", "45% to 60%", "0"]
    assert len([line for line in text.splitlines() if line.startswith("| all |")]) == 2  # one for each runtime


def test_what_was_timed_on_two_machines_tells_how_far_times_and_order_carry_over() -> None:
    elsewhere = [(("tucker", 8), 3.0), (("tucker", 4), 1.2), (("jaderberg", 4), 2.4), (("channel_svd", 4), 1.4)]
    records = [measurement_record(trial(*of), speedup, machine="bench-2") for of, speedup in elsewhere]
    slower = [r.model_copy(update={"timing": r.timing.model_copy(update={"dense_ms": 80.0})}) for r in records]
    bound = {"latency": 2, "runtime": "onnxruntime", "threads": 1, "batch": 64}  # on each machine another model
    for machine in ("bench-1", "bench-2"):
        own = trial("tucker", budget=Budget.model_validate(bound), versions={"machine": len(slower)})
        slower += [trial_record(own), measurement_record(own, 2.0, machine=machine)]
    row = cells(page([*sweep(), *slower]), "charnet on chars36, recipe standard")
    assert row[1:6] == ["onnxruntime 1t b64", "bench-1, bench-2", "40, 80", "4", "4"]
    # 3.6, 2.4, 3.1 and 2.1 on bench-1; of the six pairs, tucker macs/4 and channel_svd change places
    assert row[6:] == ["0.72", "0.50 to 0.83", "5", "1"]
    assert "another machine" not in page(sweep())


def test_no_claim_is_named_that_nobody_measured() -> None:
    assert "Which claims hold" not in page(sweep())
