"""A verdict says what it rests on: an interval, a point estimate, one runtime, the best of several models or all."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from synthetic_paper import outcome, paper_of
from synthetic_records import IMAGES, failed_trial, measurement_record, sweep, trial, trial_record

from lowrank_bench.measurement.quality import pack_hits
from lowrank_bench.record import MeasurementRecord, RuntimeQuality, Status, TrialRecord
from lowrank_bench.reporting.claims.claim_counts import claim_counts
from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.fits import fits_table
from lowrank_bench.reporting.claims.reproduction import reproduced, reproduction_markdown

FREE = "times as fast in the fastest runtimes, dense and compressed"


@pytest.mark.parametrize(
    ("limit", "verdict", "met"),
    [(3.7, "confirmed", 2), (3.0, "not confirmed", 1), (2.0, "not confirmed", 0)],
)
def test_a_claim_about_every_model_is_judged_by_the_one_farthest_off(limit: float, verdict: str, met: int) -> None:
    asked = {"metric": "speedup", "at_most": limit}  # macs/4 is 2.4 times as fast, macs/8 3.6 times
    models = {"experiment": "net", "method": "tucker", "runtime": "onnxruntime"}
    found = outcome(paper_of("tucker", asked, models=models, every=True), sweep())
    assert found.verdict == verdict
    assert found.here.endswith(
        "tucker macs/8 in onnxruntime 1t b64, 1 seed, top-1 91.0 dense, 89.4 % "
        f"(farthest of 2 timings, {met} of which meet it)"
    )
    assert found.judged_by == f"speedup ≤ {limit:g}, of every one"
    best = outcome(paper_of("tucker", asked, models=models), sweep())
    assert "tucker macs/4" in best.here and best.here.endswith("(best of 2 timings)")


@pytest.mark.parametrize(("limit", "verdict"), [(9.0, "open"), (2.0, "not confirmed")])
def test_of_every_model_one_that_fails_is_enough_and_those_that_hold_are_not(limit: float, verdict: str) -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_most": limit}, target=None, every=True)
    records = [record for record in sweep() if "macs/8" not in str(getattr(record, "trial", ""))]
    assert outcome(paper, records).verdict == verdict


def test_of_every_model_one_that_could_not_be_made_leaves_it_undecided() -> None:
    paper = paper_of("tucker", {"metric": "macs_ratio", "at_least": 2.0}, target=None, every=True)
    assert outcome(paper, sweep()).verdict == "confirmed"
    lost = failed_trial(trial("tucker", 8), Status.FAILED, "SolverFailed: it does not converge")
    records = [record for record in sweep() if record.key != lost.key] + [lost]
    found = outcome(paper, records)
    assert found.verdict == "undecided" and found.detail.endswith(": 1 of 2 models failed")
    best = outcome(paper_of("tucker", {"metric": "macs_ratio", "at_least": 2.0}, target=None), records)
    assert best.verdict == "confirmed"


def test_of_every_model_one_that_could_not_be_timed_leaves_it_undecided() -> None:
    asked = paper_of("tucker", {"metric": "speedup", "at_least": 1.5}, target=None, every=True)
    assert outcome(asked, sweep()).verdict == "confirmed"
    lost = measurement_record(trial("tucker", 8), status=Status.CRASHED, timing=None, reason="killed")
    found = outcome(asked, [record for record in sweep() if record.key != lost.key] + [lost])
    assert found.verdict == "undecided" and found.detail.endswith(": 1 of 2 models failed")


def test_the_closest_model_is_the_one_whose_least_met_condition_is_met_best() -> None:
    fast, lossless = {"metric": "speedup", "at_least": 3.1}, {"metric": "loss", "at_most": 0.9}
    # macs/4 is 2.4 times as fast and surely loses less; macs/8 is 3.1 times as fast and may lose as little
    records: list[Any] = [trial_record(trial("identity")), measurement_record(trial("identity"), 1.0)]
    for ratio, loss, speedup in ((4, 0.1, 2.4), (8, 1.1, 3.09)):
        of = trial("tucker", ratio)
        records += [trial_record(of, loss), measurement_record(of, speedup)]
    models = {"experiment": "net", "method": "tucker", "runtime": "onnxruntime"}
    found = outcome(paper_of("tucker", fast, lossless, models=models), records)
    assert found.verdict == "undecided" and "tucker macs/8" in found.here


def test_a_practical_speedup_whose_interval_nobody_knows_confirms_nothing() -> None:
    day = "2026-05-0{}T10:00:00+00:00"
    records = [
        *(trial_record(of) for of in (trial("identity"), trial("tucker", 4))),
        measurement_record(trial("identity"), 1.0, finished=day.format(1)),
        measurement_record(trial("tucker", 4), 9.0, runtime="eager-nhwc", finished=day.format(9)),
    ]
    models = {"experiment": "net", "method": "tucker", "budget": {"macs": 4}, "runtime": "eager-nhwc"}
    found = outcome(paper_of("tucker", {"metric": "practical", "at_least": 2.0}, models=models), records)
    assert found.verdict == "undecided" and "[0.00, inf]" in found.here


def test_two_conditions_of_one_number_show_it_once() -> None:
    asked = ({"metric": "speedup", "at_least": 2.0}, {"metric": "speedup", "at_most": 3.0})
    found = outcome(paper_of("tucker", *asked), sweep())
    assert found.here.startswith("2.40 [2.38, 2.42] times as fast: ") and found.numbers.count("2.40") == 1
    assert found.verdict == "confirmed"


def test_a_loss_stands_beside_the_accuracies() -> None:
    assert ", top-1 " in outcome(paper_of("tucker", {"metric": "loss", "at_most": 9.0}), sweep()).here


def test_what_a_paper_says_of_another_model_is_told_as_ours_and_counted_apart() -> None:
    asked = {"metric": "speedup", "at_least": 2.0}
    ours = reproduced(paper_of("tucker", asked, ours=True, from_memory=True), Evidence(sweep()))
    assert ours.outcomes[0].cells[1] == "2x (abstract; not a claim of the paper's; quoted from memory)"
    theirs = reproduced(paper_of("tucker", asked), Evidence(sweep()))
    text = "\n".join(claim_counts([ours, theirs]))
    assert "| synthetic | 1 | 1 |" in text and "| all papers | 1 | 1 |" in text
    assert "| this suite's own | 1 | 1 (1) |" in text


def test_how_well_a_layer_was_fitted_is_listed_by_rank_and_method() -> None:
    evidence = Evidence(sweep())
    plan = paper_of("tucker", {"metric": "speedup", "at_least": 2.0}).plans()["net"]
    table = fits_table(evidence, plan.trials, "conv2")
    assert "| Target | tucker |" in table and re.search(r"\| macs/4 \| 0\.\d{3} \([+-]?[\d.]+ \[", table)
    assert fits_table(evidence, plan.trials, "nowhere") == ""


def test_what_a_fit_costs_is_counted_in_float32_whatever_was_timed_first() -> None:
    wrong = RuntimeQuality(images=IMAGES, top1=0.0, hits=pack_hits(np.zeros(IMAGES, bool)), calibration_images=256)
    eight_bits = measurement_record(trial("tucker", 4), 1.5, runtime="onnxruntime-int8", quality=wrong)
    records = sweep()
    records.insert(0, eight_bits)
    plan = paper_of("tucker", {"metric": "speedup", "at_least": 2.0}).plans()["net"]
    assert fits_table(Evidence(records), plan.trials, "conv2") == fits_table(Evidence(sweep()), plan.trials, "conv2")


def test_the_page_says_how_long_making_and_timing_took() -> None:
    records = [
        r if isinstance(r, TrialRecord) else r.model_copy(update={"seconds": {"load": 15.0, "time": 45.0}})
        for r in sweep()
    ]
    found = reproduced(paper_of("tucker", {"metric": "speedup", "at_least": 2.0}), Evidence(records))
    assert found.minutes == {"": pytest.approx(7 * 41.5 / 60), "bench-1": pytest.approx(7 * 2)}
    told = "Minutes by these records, one after another, without the start of processes: making the models 5, timing"
    assert f"{told} them 14 on bench-1." in reproduction_markdown([found])
    hardly = found._replace(minutes={"": 5.0, "bench-1": 0.4})
    assert "making the models 5." in reproduction_markdown([hardly])


def test_a_count_that_decides_says_that_it_is_one() -> None:
    count = {"metric": "macs_ratio"}
    judged = outcome(paper_of("tucker", count | {"at_least": 3.9}), sweep())
    assert judged.here.startswith("4.00x fewer MACs (exact count): ") and judged.told == "confirmed"
    shown = outcome(paper_of("tucker", {"metric": "loss", "at_most": 9.0}, count), sweep())
    assert "4.00x fewer MACs: " in shown.here


def test_a_row_says_that_its_processes_disagree() -> None:
    def unstable(record: Any) -> Any:
        if not isinstance(record, MeasurementRecord) or record.timing is None:
            return record
        return record.model_copy(update={"timing": record.timing.model_copy(update={"unstable": True})})

    paper = paper_of("tucker", {"metric": "speedup", "at_least": 2.0})
    assert "onnxruntime 1t b64, unstable, 1 seed" in outcome(paper, [*map(unstable, sweep())]).here
    assert "unstable" not in outcome(paper, sweep()).here


def by_runtime(speedups: dict[str, float], dense_ms: dict[str, float]) -> list[Any]:
    """A model at 4x fewer MACs and the dense one against its copy, timed in these runtimes within an hour."""
    timed = [measurement_record(trial("tucker", 4), s, runtime=name) for name, s in speedups.items()]
    timed += [measurement_record(trial("identity"), 1.0, runtime=name) for name in speedups]
    return [
        trial_record(trial("identity")),
        trial_record(trial("tucker", 4)),
        *(
            record.model_copy(
                update={"timing": record.timing.model_copy(update={"dense_ms": dense_ms[record.measurement.runtime]})}
            )
            for record in timed
            if record.timing
        ),
    ]


def test_a_speedup_that_holds_in_its_runtime_alone_stands_beside_the_practical_one() -> None:
    records = by_runtime({"eager-nhwc": 2.1, "onnxruntime": 1.2}, {"eager-nhwc": 110.0, "onnxruntime": 100.0})
    asked = {"metric": "speedup", "at_least": 2.0}
    found = outcome(paper_of("tucker", asked), records)
    assert found.told == "confirmed; not met in the fastest runtimes"
    assert "in eager-nhwc" in found.here and re.search(rf"; 1\.91 \[[\d.]+, [\d.]+\] {FREE}", found.here)
    of_one = {"experiment": "net", "method": "tucker", "budget": {"macs": 4}, "runtime": "eager-nhwc"}
    assert outcome(paper_of("tucker", asked, models=of_one), records).told == "confirmed"
    shown = outcome(paper_of("tucker", asked, {"metric": "practical"}), records)
    assert shown.told == found.told and shown.here.count(FREE) == 1
    fast = by_runtime({"eager-nhwc": 2.1, "onnxruntime": 2.4}, {"eager-nhwc": 110.0, "onnxruntime": 100.0})
    same = outcome(paper_of("tucker", asked), fast)
    assert same.told == "confirmed" and FREE not in same.here


def test_the_practical_speedup_is_that_of_all_seeds_like_the_speedup() -> None:
    asked = ({"metric": "speedup"}, {"metric": "practical", "at_least": 2.0})
    here = outcome(paper_of("tucker", *asked, seeds=(0, 1)), sweep((0, 1))).here
    own, free = re.findall(r"[\d.]+ \[[\d.]+, [\d.]+\]", here)
    assert own == free and own.startswith("2.41 ")  # of 2.40 and 2.424 in the dense model's fastest runtime


def test_a_number_from_memory_is_told_as_unchecked_in_the_verdict() -> None:
    asked = {"metric": "speedup", "at_least": 2.0}
    found = outcome(paper_of("tucker", asked, from_memory=True), sweep())
    assert found.told == "confirmed; what the paper says is not checked"
    assert found.cells[1] == "2x (abstract; quoted from memory)"
    assert outcome(paper_of("tucker", asked, from_memory=True), []).told == "not measured"
    page = reproduction_markdown([reproduced(paper_of("tucker", asked, from_memory=True), Evidence(sweep()))])
    assert "| confirmed; what the paper says is not checked |" in page
