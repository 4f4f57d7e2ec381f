"""A paper's claim is judged by the records' intervals, by rule, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from synthetic_paper import PAPER, outcome, paper_of
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record
from typer.testing import CliRunner

from lowrank_bench import cli_reproduce
from lowrank_bench.cli import app
from lowrank_bench.errors import DataMissing, InvalidInput
from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.record import LayerSize, MeasurementRecord, Status, TrialRecord
from lowrank_bench.reporting.claims.evidence import Evidence
from lowrank_bench.reporting.claims.paper import Paper, parse_paper
from lowrank_bench.reporting.claims.reproduction import reproduced, reproduction_markdown
from lowrank_bench.running.crew import LocalCrew
from lowrank_bench.store import Store
from lowrank_bench.trial import Budget


def paper_runtimes(paper: Paper) -> list[str]:
    measure = paper.experiments["net"].measure
    assert measure is not None
    return measure.runtimes


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ({"at_least": 2.37}, "confirmed"),  # the interval is [2.376, 2.424]
        ({"at_least": 2.38}, "undecided: the estimate meets it, its whole interval does not"),
        ({"at_least": 2.41}, "undecided: only the better end of the interval meets it"),
        ({"at_least": 2.43}, "not confirmed"),
        ({"at_most": 2.43}, "confirmed"),
        ({"at_most": 2.41}, "undecided: the estimate meets it, its whole interval does not"),
        ({"at_most": 2.38}, "undecided: only the better end of the interval meets it"),
        ({"at_most": 2.37}, "not confirmed"),
        ({"not_below": 2.42}, "not ruled out"),
        ({"not_below": 2.43}, "not confirmed"),
        ({"not_above": 2.38}, "not ruled out"),
        ({"not_above": 2.37}, "not confirmed"),
    ],
)
def test_the_verdict_follows_from_the_interval(condition: dict[str, float], verdict: str) -> None:
    found = outcome(paper_of("tucker", {"metric": "speedup", **condition}), sweep())
    assert found.verdict + found.detail == verdict
    assert found.here == (
        "2.40 [2.38, 2.42] times as fast: tucker macs/4 in onnxruntime 1t b64, 1 seed, top-1 91.0 dense, 90.6 %"
    )


def test_all_conditions_must_hold() -> None:
    fast = {"metric": "speedup", "at_least": 3.0}
    found = outcome(paper_of("tucker", fast, {"metric": "loss", "at_most": 1.0}, target=8), sweep())
    assert found.verdict == "not confirmed"
    assert (
        outcome(paper_of("tucker", fast, {"metric": "loss", "at_most": 9.0}, target=8), sweep()).verdict == "confirmed"
    )


def test_where_the_rank_is_free_the_closest_model_is_shown() -> None:
    paper = paper_of(
        "jaderberg", {"metric": "speedup", "at_least": 4.5}, {"metric": "loss", "at_most": 3.0}, target=None
    )
    found = outcome(paper, sweep())
    assert found.verdict == "confirmed" and "jaderberg macs/8" in found.here and "best of 2" in found.here


def test_of_models_that_meet_as_many_conditions_the_one_is_shown_that_misses_none_of_them_by_much() -> None:
    fast, lossless = {"metric": "speedup", "at_least": 3.2}, {"metric": "loss", "not_above": 0.1}
    found = outcome(paper_of("jaderberg", fast, lossless, target=None), sweep())
    # macs/4 is 3.1 times as fast and loses 0.2 points, macs/8 5.2 times and 0.9: each meets one of the two
    assert found.verdict == "not confirmed" and "jaderberg macs/4" in found.here


def test_a_loss_can_be_counted_from_the_network_as_it_came() -> None:
    counted = {"metric": "loss_as_it_came"}
    found = outcome(paper_of("tucker", {"metric": "loss", "at_most": 1}, counted), sweep())
    control = next(r for r in sweep() if isinstance(r, TrialRecord) and r.trial.method == "identity")
    assert control.quality is not None
    came = control.quality.top1_before - (control.quality.top1_after - 0.4)
    assert f"{came:+.2f} [" in found.here and "points from the network as it came" in found.here
    without_control = [record for record in sweep() if "identity" not in str(getattr(record, "trial", ""))]
    assert outcome(paper_of("tucker", counted | {"at_most": 1.0}), without_control).verdict == "not measured"


def test_a_slow_dense_side_carries_no_claim_unless_its_runtime_is_named() -> None:
    records = [r for r in sweep() if getattr(getattr(r, "measurement", None), "runtime", "") != "onnxruntime"]
    assert "eager-nhwc" in outcome(paper_of("tucker", {"metric": "speedup", "at_least": 1}), records).here
    assert "onnxruntime" in outcome(paper_of("tucker", {"metric": "speedup", "at_least": 1}), sweep()).here
    named = paper_of("tucker", {"metric": "speedup", "at_least": 1})
    models = named.claims[0].models.model_copy(update={"runtime": "eager-nhwc"})
    named = named.model_copy(update={"claims": [named.claims[0].model_copy(update={"models": models})]})
    assert "eager-nhwc" in outcome(named, sweep()).here


def test_loss_is_the_mean_of_the_seeds_with_the_outer_ends_of_their_intervals() -> None:
    paper = paper_of("tucker", {"metric": "loss", "at_most": 9}, {"metric": "macs_ratio"}, seeds=(0, 1, 2))
    found = outcome(paper, sweep((0, 1, 2)))
    frame = Evidence(sweep((0, 1, 2))).frame
    rows = frame[(frame["method"] == "tucker") & (frame["target"] == "macs/4")]
    low, high = rows["top1_drop_low"].min(), rows["top1_drop_high"].max()
    assert f"{rows['top1_drop'].mean():+.2f} [{low:+.2f}, {high:+.2f}] points lost" in found.here
    assert "4.00x fewer MACs" in found.here and "3 seeds" in found.here


def test_loss_can_be_counted_from_another_method() -> None:
    against = {"experiment": "net", "method": "jaderberg"}
    found = outcome(paper_of("tucker", {"metric": "loss", "at_most": 0}, against=against), sweep())
    assert found.here.startswith("+0.20 [")  # 0.4 points lost by tucker, 0.2 by jaderberg
    assert found.here.endswith("against jaderberg, 90.5 %")
    assert outcome(paper_of("tucker", {"metric": "loss", "at_most": 0}, against=against), []).verdict == "not measured"


def test_loss_can_be_counted_as_a_multiple_of_another_methods() -> None:
    ratio = {"metric": "loss_ratio", "at_most": 1}
    paper = paper_of("tucker", ratio, against={"experiment": "net", "method": "jaderberg"})
    found = outcome(paper, sweep())
    assert found.here.startswith("2.00 [")  # 0.4 points lost by tucker, 0.2 by jaderberg
    assert "] of the other's loss" in found.here and found.here.endswith("against jaderberg, 90.5 %")
    without_control = [record for record in sweep() if "identity" not in str(getattr(record, "trial", ""))]
    assert outcome(paper, without_control).verdict == "not measured"


def test_loss_can_be_counted_from_another_recipe() -> None:
    paper = paper_of("tucker", {"metric": "loss", "at_most": 0}, against={"experiment": "short", "method": "tucker"})
    short = paper.experiments["net"].model_copy(
        update={"sweep": paper.experiments["net"].sweep.model_copy(update={"recipe": "short"})}
    )
    paper = paper.model_copy(update={"experiments": {**paper.experiments, "short": short}})
    worse = trial_record(trial("tucker", 4, recipe="short"), 3.0)
    found = outcome(paper, [*sweep(), worse])
    assert found.verdict == "confirmed"
    assert found.here.startswith("-2.60 [") and found.here.endswith("against tucker tuned by short, 88.0 %")


def test_errors_of_a_layer_stand_beside_those_of_the_other_method() -> None:
    def with_error(record: Any, error: float) -> TrialRecord:
        layer = LayerSize(ranks=(16,), error=error, params=5, macs=5, dense_params=10, dense_macs=20)
        made: TrialRecord = record.model_copy(
            update={"size": record.size.model_copy(update={"layers": {"conv2": layer}})}
        )
        return made

    records = [
        with_error(trial_record(trial(method, 4, seed=seed)), error * (1 + seed))
        for method, error in (("tucker", 0.1), ("jaderberg", 0.2))
        for seed in (0, 1)
    ]
    ratio = {"metric": "weight_error_ratio", "layer": "conv2", "at_most": 0.5}
    checks = [ratio] + [
        {"metric": m, "layer": "conv2"} for m in ("weight_error", "layer_params_ratio", "layer_macs_ratio")
    ]
    paper = paper_of("tucker", *checks, seeds=(0, 1), against={"experiment": "net", "method": "jaderberg"})
    found = outcome(paper, records)
    assert found.told == "confirmed (by the point estimate)"
    assert found.here.startswith(
        "0.500 times the other's error of conv2 (point estimate), "
        "0.150 [0.100, 0.200] relative error of conv2 (range of the seeds), "
    )
    assert "2.00x fewer parameters in conv2, 4.00x fewer MACs in conv2" in found.here


def test_what_is_not_measured_says_why() -> None:
    paper = paper_of("cp_nls", {"metric": "speedup", "at_least": 1})
    assert outcome(paper, sweep()).here.startswith("skipped: InvalidBudget: largest reachable ratio")
    assert outcome(paper, []).here == "no record"
    missing = failed_trial(trial("tucker", 4), Status.SKIPPED, "DataMissing: no images here")
    found = outcome(paper_of("tucker", {"metric": "loss", "at_most": 1}), [missing])
    assert (found.verdict, found.here) == ("not measured", "skipped: DataMissing: no images here")


@pytest.mark.parametrize(("limit", "verdict"), [(2.3, "confirmed; "), (3.0, "open: ")])
def test_while_models_are_to_be_run_that_may_still_meet_it_a_claim_is_confirmed_or_open(
    limit: float, verdict: str
) -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": limit}, target=None)
    records = [record for record in sweep() if "macs/8" not in str(getattr(record, "trial", ""))]
    found = outcome(paper, records)
    assert found.verdict + found.detail == f"{verdict}1 of 2 models not timed in every runtime yet"
    assert "macs/4" in found.here
    untimed = outcome(paper_of("tucker", {"metric": "loss", "at_most": 0}, seeds=(0, 1)), sweep())
    assert untimed.verdict + untimed.detail == "open: 1 of 2 models not run yet"


def test_a_runtime_that_is_still_to_be_timed_keeps_a_claim_open_and_one_that_refused_the_model_does_not() -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 3.0})
    here = [r for r in sweep() if getattr(getattr(r, "measurement", None), "runtime", "") != "eager-nhwc"]
    assert outcome(paper, here).verdict == "open"
    refused = measurement_record(
        trial("tucker", 4), runtime="eager-nhwc", status=Status.NOT_EXPORTABLE, reason="no operator", timing=None
    )
    assert outcome(paper, [*here, refused]).verdict == "not confirmed"


def test_times_from_fewer_processes_than_the_experiment_asks_for_judge_nothing() -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 2.0}, processes=5)
    hasty = outcome(paper, sweep())
    assert (hasty.verdict, hasty.here) == ("not measured", "1 of 1 models not timed in every runtime yet")
    thorough = [measurement_record(trial("tucker", 4), 1.5, processes=5, runtime=r) for r in paper_runtimes(paper)]
    assert outcome(paper, [*sweep(), *thorough]).verdict == "not confirmed"


def test_machines_are_never_mixed() -> None:
    other = [
        measurement_record(of, speedup, machine="bench-2", runtime=runtime)
        for of, speedup in ((trial("tucker", 4), 1.5), (trial("identity"), 1.0))
        for runtime in ("eager-nhwc", "onnxruntime")
    ]
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 2.0})
    found = reproduced(paper, Evidence(sweep() + other)).outcomes
    assert [(o.machine, o.verdict) for o in found] == [("bench-1", "confirmed"), ("bench-2", "not confirmed")]
    page = reproduction_markdown([reproduced(paper, Evidence(sweep() + other))])
    assert page.index("bench-1") < page.index("bench-2")
    assert page.count("- Environment of bench-1: cpu: Testor 9000; cores: 2") == 1
    assert page.count("- Environment of bench-2: cpu: Testor 9000; cores: 2") == 1


def test_where_a_machine_has_decided_a_claim_those_on_which_it_is_open_are_left_out() -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 3.0})
    begun = [r for r in sweep() if getattr(getattr(r, "measurement", None), "runtime", "") != "eager-nhwc"]
    elsewhere = [
        measurement_record(trial("tucker", 4), 1.5, machine="bench-2", runtime=runtime)
        for runtime in ("eager-nhwc", "onnxruntime")
    ]
    for records, told in ((begun, ("bench-1", "open")), (begun + elsewhere, ("bench-2", "not confirmed"))):
        (found,) = reproduced(paper, Evidence(records)).outcomes
        assert (found.machine, found.verdict) == told


def test_a_machine_that_measured_nothing_of_a_claim_decides_nothing_and_hides_none_on_which_it_is_open() -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 3.0})
    lost = [
        measurement_record(trial("tucker", 4), machine="bench-0", status=Status.FAILED, reason="", timing=None, **of)
        for of in ({"runtime": "eager-nhwc"}, {"runtime": "onnxruntime"})
    ]
    begun = [r for r in sweep() if getattr(getattr(r, "measurement", None), "runtime", "") != "eager-nhwc"]
    found = reproduced(paper, Evidence(begun + lost)).outcomes
    assert [(o.machine, o.verdict) for o in found] == [("bench-0", "not measured"), ("bench-1", "open")]


def test_a_claim_is_judged_on_each_machine_that_timed_its_models_and_told_once_where_none_did() -> None:
    elsewhere = [
        measurement_record(trial("tucker", 8), 3.0, machine="bench-2", runtime=runtime)
        for runtime in ("eager-nhwc", "onnxruntime")
    ]
    quarter = paper_of("tucker", {"metric": "speedup", "at_least": 2.0})
    claims = [
        claim.model_copy(update={"claim": name, "models": claim.models.model_copy(update={"budget": budget})})
        for claim in quarter.claims
        for name, budget in (("4x", Budget(macs=4)), ("8x", Budget(macs=8)), ("2x", Budget(macs=2)))
    ]
    eighth = trial("tucker", 8).key
    here = [r for r in sweep() if not (isinstance(r, MeasurementRecord) and r.measurement.trial == eighth)]
    done = reproduced(quarter.model_copy(update={"claims": claims}), Evidence(here + elsewhere))
    found = [(outcome.claim.claim, outcome.machine, outcome.verdict) for outcome in done.outcomes]
    assert found == [("4x", "bench-1", "confirmed"), ("8x", "bench-2", "confirmed"), ("2x", "", "not measured")]


def test_a_model_that_a_machine_could_not_time_is_told_of_there() -> None:
    paper = paper_of("tucker", {"metric": "speedup", "at_least": 2.0})
    told = {"machine": "bench-2", "status": Status.NOT_EXPORTABLE, "reason": "an operator", "timing": None}
    refused = [measurement_record(trial("tucker", 4), runtime=runtime, **told) for runtime in paper_runtimes(paper)]
    done = reproduced(paper, Evidence(sweep() + refused))
    assert [(o.machine, o.verdict) for o in done.outcomes] == [("bench-1", "confirmed"), ("bench-2", "not measured")]
    assert done.outcomes[1].here == "not_exportable: an operator"


def test_models_of_two_trainings_of_a_network_are_not_compared_image_by_image() -> None:
    against = {"experiment": "net", "method": "jaderberg"}
    paper = paper_of("tucker", {"metric": "loss", "at_most": 0}, against=against)
    ours, theirs = (trial(method, 4, versions={"brought": 1}) for method in ("tucker", "jaderberg"))
    alike = [trial_record(ours, 0.4), trial_record(theirs, 0.2)]
    assert outcome(paper, alike).verdict == "not confirmed"
    other = trial_record(theirs.model_copy(update={"versions": {"brought": 2}}), 0.2)
    found = outcome(paper, [alike[0], other])
    assert found.verdict == "not measured" and "another network" in found.here


def test_models_of_networks_that_two_machines_trained_are_each_compared_with_their_own() -> None:
    against = {"experiment": "net", "method": "jaderberg"}
    paper = paper_of("tucker", {"metric": "loss", "at_most": 0}, against=against)

    def made(number: int) -> list[TrialRecord]:
        pair = (trial(method, 4, versions={"brought": number}) for method in ("tucker", "jaderberg"))
        here = {"environment": {"machine": f"m{number}"}}
        return [trial_record(of, loss, **here) for of, loss in zip(pair, (0.4, 0.2), strict=True)]

    assert outcome(paper, made(1) + made(2)).verdict == "not confirmed"
    elsewhere = trial_record(trial("jaderberg", 4, versions={"brought": 2}), 40.0, environment={"machine": "m2"})
    assert outcome(paper, [*made(1), elsewhere]) == outcome(paper, made(1))
    assert outcome(paper, made(1)[:1]) == outcome(paper, [*made(1)[:1], elsewhere])


def test_records_of_an_older_declared_version_still_count() -> None:
    of = trial("tucker", 4, versions={"method": 1})
    records = [trial_record(of), measurement_record(of, 3.0)]
    assert outcome(paper_of("tucker", {"metric": "speedup", "at_least": 2.0}), records).verdict == "confirmed"


def test_the_command_runs_what_is_missing_and_shows_paper_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = parse_paper("synthetic", PAPER.replace(', "jaderberg", "channel_svd", "cp_nls"', ""))
    monkeypatch.setattr(cli_reproduce, "paper_names", lambda: ["synthetic"])
    monkeypatch.setattr("lowrank_bench.reporting.claims.paper.load_paper", lambda name: paper)
    (planned,) = paper.plans().values()
    trials = {of.key: of for of in planned.trials}
    store = Store(tmp_path)
    for of in trials.values():
        store.append(trial_record(of))
    for wanted in planned.sweep.measurements(planned.trials, fingerprint().machine, 1):
        of = trials[wanted.trial]
        speedup = 1.0 if of.budget is None else 2.5
        store.append(measurement_record(of, speedup, **wanted.model_dump(exclude={"trial"})))
    done = CliRunner().invoke(app, ["reproduce", "synthetic", "--out", str(tmp_path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "confirmed" in done.output and "twice as fast" in done.output
    assert f"Timed on: {fingerprint().machine}" in done.output
    assert "2.50" in (tmp_path / "reproduction.md").read_text()


def test_where_the_data_of_all_experiments_are_missing_the_command_says_so_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> None:
        raise DataMissing("fashion_mnist is not on this machine")

    monkeypatch.setattr("lowrank_bench.running.ready.check_ready", missing)
    done = CliRunner().invoke(app, ["reproduce", "garipov2016", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, DataMissing)
    assert not (tmp_path / "out").exists()


class Idle(LocalCrew):
    """Does nothing, however much there is to do."""

    asked: ClassVar[list[tuple[int, list[str]]]] = []

    def work(self, host: Any, trials: Any, *_: Any) -> Any:
        self.asked.append((self.jobs, sorted(map(str, trials))))
        return (record for record in ())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Of each run: how many trials side by side, and which."""
    monkeypatch.setattr("lowrank_bench.running.crew.LocalCrew", Idle)
    monkeypatch.setattr(Idle, "asked", [])
    return Idle.asked


def test_as_many_trials_are_prepared_side_by_side_as_are_asked_for(tmp_path: Path, asked: list[Any]) -> None:
    CliRunner().invoke(app, ["reproduce", "asvd2023", "--quick", "-j", "2", "--out", str(tmp_path)])
    assert [jobs for jobs, _ in asked] == [2]


def test_a_part_of_a_paper_is_run_with_its_control_where_a_part_is_asked_for(tmp_path: Path, asked: list[Any]) -> None:
    arguments = ["reproduce", "lowrank_bench2026", "--quick", "--out", str(tmp_path)]
    CliRunner().invoke(app, [*arguments, "--only", "charnet channel_svd allocation=uniform*"])
    ((_, trials),) = asked
    assert trials == ["charnet channel_svd allocation=uniform macs/4 seed 0", "charnet identity dense seed 0"]
    refused = CliRunner().invoke(app, [*arguments, "--only", "*no such*"])
    assert isinstance(refused.exception, InvalidInput) and "matches no trial" in str(refused.exception)


def test_of_a_paper_without_records_the_page_says_so_in_a_line() -> None:
    text = reproduction_markdown([reproduced(paper_of("tucker", {"metric": "loss", "at_most": 1}), Evidence([]))])
    assert "nothing is recorded yet: synthetic" in text and "|" not in text
