from __future__ import annotations

import json
import math
import re

import pytest
from rich.console import Console

from lowrank_bench import cli_inspect
from lowrank_bench.errors import InvalidInput
from lowrank_bench.measurement import diagnosis
from lowrank_bench.measurement.diagnosis import Diagnosis, Probe, diagnose, probe
from lowrank_bench.measurement.environment import Check, fingerprint
from lowrank_bench.measurement.peak import Peak

QUIET = Probe(
    ratio=1.0,
    low=0.998,
    high=1.003,
    noise_floor=0.003,
    pairs=200,
    core_share=0.999,
    peaks={1: Peak(120.0, 11.0)},
    steps={"eager": {1: 1.0, 16: 1.2, 32: 1.21}, "openvino": {1: 1.0, 16: 1.01, 32: 1.0}},
)
NOISY = QUIET.model_copy(update={"low": 0.9, "high": 1.1, "noise_floor": 0.111, "core_share": 0.6})
GOOD, BAD = Check("oneDNN", True, "on", "enable it"), Check("load", False, "9 running on 2 cores", "end what else runs")


def test_a_probe_is_an_a_a_on_one_pinned_core_and_peaks_of_one_thread_and_of_all_cores(monkeypatch):
    pinned = []
    monkeypatch.setattr(diagnosis, "pin_cores", pinned.append)
    monkeypatch.setattr(diagnosis, "usable_cores", lambda: 3)
    monkeypatch.setattr(diagnosis, "all_rank_steps", lambda: QUIET.steps)
    monkeypatch.setattr(diagnosis, "peak", lambda threads: Peak(100.0 * threads, 10.0))
    found = probe(0.5)
    assert pinned == [1]
    assert found.peaks == {1: Peak(100.0, 10.0), 3: Peak(300.0, 10.0)}
    assert found.low <= found.ratio <= found.high
    assert found.low < 1.25 and found.high > 0.8  # loose, since other tests share the cores
    assert found.noise_floor == pytest.approx(max(found.high, 1 / found.low) - 1)
    assert 0 < found.core_share < 1.1
    assert Probe.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_seconds_that_are_no_time_are_refused(seconds):
    with pytest.raises(InvalidInput):
        probe(seconds)


def test_a_quiet_machine_is_trusted_and_says_what_it_can_tell_apart():
    found = diagnose(fingerprint(), [GOOD], QUIET)
    assert all(check.ok for check in found.checks)
    assert "differ by less than 0.3% are called the same" in found.conclusion
    assert "Nothing was found" in found.conclusion


def test_what_spoils_timings_is_named_in_the_conclusion():
    found = diagnose(fingerprint(), [GOOD, BAD], NOISY)
    assert [check.name for check in found.checks if not check.ok] == ["load", "noise floor", "core to itself"]
    assert "not to be trusted because of: load, noise floor, core to itself" in found.conclusion
    assert Diagnosis.model_validate_json(found.model_dump_json()) == found


def test_doctor_shows_every_check_and_the_remedy_of_those_that_fail(monkeypatch, capsys):
    monkeypatch.setattr(cli_inspect, "Console", lambda: Console(width=200))
    monkeypatch.setattr(
        "lowrank_bench.running.inspect.inspect_machine", lambda *_: diagnose(fingerprint(), [GOOD, BAD], QUIET)
    )
    cli_inspect.doctor(1.0, False)
    shown = capsys.readouterr().out
    assert "end what else runs" in shown and "enable it" not in shown
    for line in (
        "of, eager +16: 1.20x, 32: 1.21x; .* align = 16 ",
        "of, openvino +16: 1.01x, 32: 1.00x; .* align = 1 ",
    ):
        assert re.search(line, shown)
    assert "120 GFLOP/s, 11.0 GB/s" in shown and "not to be trusted because of: load" in shown
    cli_inspect.doctor(1.0, True)
    assert json.loads(capsys.readouterr().out)["checks"][1]["remedy"] == "end what else runs"
