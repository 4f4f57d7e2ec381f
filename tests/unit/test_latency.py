"""Budgets in latency: met by what a timer says of the whole network, whatever the table of layers promised."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_timer import FakeTimer
from torch import nn
from toys import SIZE, toy_net

import lowrank_bench as lrb
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.registry import method_class
from lowrank_bench.measurement import clock as clock_module
from lowrank_bench.measurement.clock import Clock
from lowrank_bench.measurement.cores import usable_cores, visible_cores
from lowrank_bench.record import Status
from lowrank_bench.running import host
from lowrank_bench.running.child import Ended, Family
from lowrank_bench.running.worker import Outcome
from lowrank_bench.trial import Trial

BUDGET = lrb.Budget(latency=2, runtime="eager", threads=1, batch=4)


def meet(timer: FakeTimer, method: str = "channel_svd", budget: lrb.Budget = BUDGET, **options: object) -> nn.Module:
    made = method_class(method)(**options)
    return made.compress(toy_net(), Job(SIZE, budget, timer=timer)).model


@pytest.mark.parametrize(
    ("method", "options", "slowdown"),
    [
        ("channel_svd", {}, 0.8),
        ("channel_svd", {"allocation": "uniform"}, 1.4),
        ("jaderberg", {}, 1.4),
        ("tucker", {}, 1.0),
    ],
)
def test_the_measured_ratio_is_within_5_percent(method: str, options: dict[str, object], slowdown: float) -> None:
    timer = FakeTimer(slowdown)
    model = meet(timer, method, **options)
    assert timer.ratio(toy_net(), model, (4, *SIZE), BUDGET) == pytest.approx(2, rel=0.05)
    assert len(timer.ratios) <= 6 + 1 + 1  # rounds, the last word, and this test's own


def test_a_ratio_out_of_reach_names_the_best_one_measured() -> None:
    timer = FakeTimer(rest=1e-3)
    with pytest.raises(lrb.InvalidBudget, match=r"reached on this machine is (1\.\d+)") as caught:
        meet(timer)
    assert float(str(caught.value).rsplit(" ", 1)[1]) == pytest.approx(max(timer.ratios), rel=1e-3)


def test_the_ratio_that_is_judged_is_measured_once_more() -> None:
    timer = FakeTimer()
    meet(timer)
    assert timer.ratios[-1] == pytest.approx(2, rel=0.05) and timer.ratios[-1] in timer.ratios[:-1]

    class Lucky(FakeTimer):
        """Its first measurement of every network is off, so that the nearest one is no better than others."""

        def ratio(self, dense: nn.Module, compressed: nn.Module, shape: tuple[int, ...], budget: lrb.Budget) -> float:
            told = super().ratio(dense, compressed, shape, budget)
            return told if told in self.ratios[:-1] else 1.1 * told

    found = meet(Lucky())
    assert FakeTimer().ratio(toy_net(), found, (4, *SIZE), BUDGET) == pytest.approx(2, rel=0.05)


def test_ranks_that_missed_the_second_time_are_not_tried_again() -> None:
    class Lucky(FakeTimer):
        """Told 1.95 at first and 1.5 from then on, whatever the network."""

        def ratio(self, dense: nn.Module, compressed: nn.Module, shape: tuple[int, ...], budget: lrb.Budget) -> float:
            super().ratio(dense, compressed, shape, budget)
            return 1.99 if len(self.ratios) == 1 else 1.5 + len(self.ratios) / 1e6

    with pytest.raises(lrb.InvalidBudget, match=r"reached on this machine is 1\.5"):
        meet(Lucky())


def test_the_first_layer_is_cut_where_the_others_promised_more_than_they_keep() -> None:
    timer, budget = FakeTimer(slowdown=1.4), BUDGET.model_copy(update={"latency": 2.8})  # of the others: 2.95, then 2.6
    model = meet(timer, budget=budget)
    assert timer.ratio(toy_net(), model, (4, *SIZE), budget) == pytest.approx(2.8, rel=0.05)
    assert isinstance(model[0], Factored)
    assert min(timer.ratios) < 0.95 * 2.8


def test_a_layer_that_is_not_faster_stays_dense() -> None:
    timer = FakeTimer(stage=1.0)
    with pytest.raises(lrb.InvalidBudget, match=r"is 1$"):
        meet(timer)


def test_few_ranks_of_a_layer_are_timed() -> None:
    timer = FakeTimer()
    meet(timer, "jaderberg")
    assert len(set(timer.asked)) < len(timer.asked) <= 1 + 4 + 2 * 3 * 7  # network, linear, the convolutions' ladders


def test_random_factors_of_the_table_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    method: LayerMethod = method_class("channel_svd")()  # type: ignore[assignment]
    model = toy_net()
    torch.set_rng_state(before)
    method.compress(model, Job(SIZE, BUDGET, timer=FakeTimer()))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_latency_is_of_the_whole_network_and_needs_a_timer() -> None:
    with pytest.raises(lrb.InvalidBudget, match="leave scope out"):
        meet(FakeTimer(), budget=BUDGET.model_copy(update={"scope": "convs"}))
    with pytest.raises(lrb.InvalidBudget, match="timer"):
        method_class("tucker")().compress(toy_net(), Job(SIZE, BUDGET))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a clock really timed: made-up times of a second, two seconds, and so on."""
    calls: list[object] = []

    def least(run: object, **_: int) -> int:
        calls.append(run)
        return 10**9 * len(calls)

    monkeypatch.setattr(clock_module, "least_ns", least)
    return calls


def test_a_time_is_kept_on_disk_and_a_damaged_one_is_taken_again(tmp_path: Path, timed: list[object]) -> None:
    layer, shape = nn.Conv2d(3, 8, 3), (2, 3, 9, 9)
    for _ in range(2):
        assert Clock(folder=tmp_path).seconds(layer, shape, BUDGET) == 1
    (entry,) = tmp_path.iterdir()
    entry.write_text('{"seconds": ')
    assert Clock(folder=tmp_path).seconds(layer, shape, BUDGET) == 2
    assert Clock(folder=tmp_path).seconds(layer, (4, 3, 9, 9), BUDGET) == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_a_time_that_cannot_be_kept_is_told_all_the_same(tmp_path: Path, timed: list[object]) -> None:
    (tmp_path / "file").write_text("")
    for told in (1, 2):
        assert Clock(folder=tmp_path / "file" / "cache").seconds(nn.Conv2d(3, 8, 3), (2, 3, 9, 9), BUDGET) == told


@pytest.mark.parametrize(
    "other",
    [
        {"stride": 2},
        {"padding": 1},
        {"dilation": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"dtype": torch.double},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [None, "tucker", "tt_conv"])
def test_layers_that_differ_in_one_attribute_have_a_time_each(
    method: str | None, other: dict[str, object], tmp_path: Path, timed: list[object]
) -> None:
    options = {"mode": "rebuild"} if method == "tt_conv" else {}
    for attributes in ({}, other):
        conv = nn.Conv2d(4, 8, 3, **attributes)  # type: ignore[arg-type]
        layer = conv if method is None else lrb.factorize(conv, method, 2, **options)
        Clock(folder=tmp_path).seconds(layer, (1, 4, 9, 9), BUDGET)
    assert len(timed) == 2


def test_a_network_is_timed_every_time_since_its_forward_may_have_changed(tmp_path: Path, timed: list[object]) -> None:
    for _ in range(2):
        Clock(folder=tmp_path).seconds(toy_net(), (1, *SIZE), BUDGET)
    assert len(timed) == 2
    assert not list(tmp_path.iterdir())


def test_what_is_timed_is_pinned_to_as_many_cores_as_threads(
    tmp_path: Path, timed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    before = visible_cores()

    def look(*_: object, **__: object) -> Any:
        seen.append(len(visible_cores()))
        return SimpleNamespace(interval=SimpleNamespace(ratio=1.0))

    monkeypatch.setattr(clock_module, "time_pairs", look)
    monkeypatch.setattr(clock_module, "least_ns", lambda *_, **__: 1 if look() else 0)
    layer, clock = nn.Conv2d(3, 8, 3), Clock(folder=tmp_path)
    clock.seconds(layer, (1, 3, 9, 9), BUDGET)
    clock.ratio(layer, layer, (1, 3, 9, 9), BUDGET)
    assert seen == [1, 1]
    assert visible_cores() == before


def test_a_layer_takes_some_time(tmp_path: Path) -> None:
    assert 0 < Clock(folder=tmp_path).seconds(nn.Conv2d(3, 8, 3), (2, 3, 9, 9), BUDGET) < 1


def test_timing_has_the_machine_alone_and_reading_does_not_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_module, "NETWORK_SECONDS", 0.5)
    entered = []

    @contextmanager
    def alone():
        entered.append(True)
        yield

    clock, layer = Clock(alone, tmp_path), nn.Conv2d(3, 8, 3)
    for _ in range(2):
        clock.seconds(layer, (1, 3, 9, 9), BUDGET)
    assert len(entered) == 1
    assert clock.ratio(layer, layer, (1, 3, 9, 9), BUDGET) > 0
    assert len(entered) == 2


@pytest.mark.parametrize(
    ("setting", "error"),
    [({"runtime": "eagre"}, lrb.UnknownName), ({"threads": 4096}, lrb.InvalidInput)],
)
def test_a_setting_that_cannot_be_timed_is_named(
    setting: dict[str, object], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        Clock(folder=tmp_path).seconds(nn.Conv2d(3, 8, 3), (1, 3, 9, 9), BUDGET.model_copy(update=setting))


@pytest.mark.parametrize(
    ("budget", "lock"), [(BUDGET, "timing"), (lrb.Budget(macs=2), "preparation")], ids=["latency", "macs"]
)
def test_a_trial_that_times_has_the_machine_alone(
    budget: lrb.Budget, lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []

    def spy(name: str):
        @contextmanager
        def enter(_stop: object):
            held.append(name)
            yield

        return enter

    for name in ("timing", "preparation"):
        monkeypatch.setattr(host, f"{name}_lock", spy(name))
    threads: list[int] = []
    monkeypatch.setattr(
        host, "run_child", lambda _job, count, *_: threads.append(count) or Ended(Outcome(status=Status.OK), "")
    )
    trial = Trial(task="chars36", model="charnet", method="tucker", budget=budget, recipe="none")
    here = host.Host(tmp_path, lrb.measurement.environment.fingerprint(), "", 60.0)
    here.prepare(trial, 1, lambda *_: None, Family())
    assert held == [lock]
    assert threads == [usable_cores() if lock == "timing" else 1]
