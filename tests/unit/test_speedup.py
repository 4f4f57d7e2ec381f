from __future__ import annotations

import copy
import gc
import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from lowrank_bench import api
from lowrank_bench.api import measure_speedup
from lowrank_bench.errors import InvalidInput, UnknownName
from lowrank_bench.measurement import speedup
from lowrank_bench.measurement.runtimes import prepare
from lowrank_bench.measurement.speedup import Yardstick
from lowrank_bench.measurement.statistics import noise_floor, verdict
from lowrank_bench.measurement.timing import time_pairs


def convolutions(n: int) -> nn.Module:
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(n)]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *layers, nn.BatchNorm2d(16))


def test_a_network_of_twenty_layers_against_one_of_two_is_measured_faster_and_the_other_way_round_slower():
    short, long = convolutions(2), convolutions(20)
    bounds = {"input_size": (3, 24, 24), "batch": 4, "precision": 0.1, "max_seconds": 2}
    faster, slower = measure_speedup(long, short, **bounds), measure_speedup(short, long, **bounds)
    # Loose, since other tests share the cores: exact claims are made on the simulated machine.
    assert 3 < faster.ratio < 12
    assert 1 / 12 < slower.ratio < 1 / 3
    assert faster.low <= faster.ratio <= faster.high
    assert faster.verdict == verdict(faster.raw.interval, noise_floor(faster.control.interval))
    assert faster.pairs == len(faster.raw) == len(faster.raw.ratios)
    assert str(faster).startswith(f"{faster.ratio:.2f} [{faster.low:.2f}, {faster.high:.2f}] {faster.verdict}, ")
    assert len(str(faster)) < 120
    assert faster.compressed_ms <= faster.p90_ms
    assert faster.dense_ms <= faster.dense_p90_ms
    assert faster.dense_ms > faster.compressed_ms


def test_a_network_against_its_copy_is_the_same_and_computes_the_same():
    model = convolutions(4)
    found = measure_speedup(model, copy.deepcopy(model), (3, 24, 24), precision=0.05, max_seconds=2)
    assert found.verdict == "same"
    assert found.output_error == found.runtime_error == 0


def test_the_machine_is_alone_while_it_times(monkeypatch):
    events = []

    @contextmanager
    def lock(waiting):
        events.append("alone")
        yield
        events.append("free")

    monkeypatch.setattr(api, "timing_lock", lock)
    monkeypatch.setattr(speedup, "time_pairs", lambda *a, **k: events.append("time") or time_pairs(*a, **k))
    measure_speedup(convolutions(1), convolutions(1), (3, 8, 8), precision=0.5, max_seconds=0.5)
    assert events == ["alone", "time", "time", "free"]


def test_models_timed_against_one_yardstick_share_its_control_and_its_conversion(monkeypatch):
    converted = []

    def watched(runtime: str, model: nn.Module, *args, **kwargs):
        converted.append(model)
        return prepare(runtime, model, *args, **kwargs)

    monkeypatch.setattr(speedup, "prepare", watched)
    dense, short, shorter = (convolutions(n) for n in (12, 4, 1))
    yardstick = Yardstick(dense, (3, 24, 24), batch=4, runtime="eager", threads=1, precision=0.1, max_seconds=2)
    once, twice = yardstick.speedup(short), yardstick.speedup(shorter)
    assert once.control is twice.control
    assert converted == [dense, dense, short, shorter]
    assert 1.2 < once.ratio < twice.ratio


def test_models_and_global_state_are_left_as_they_were():
    model = convolutions(1).train()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    threads = torch.get_num_threads()
    measure_speedup(model, model, (3, 8, 8), precision=1, max_seconds=0.1)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert gc.isenabled()


def test_double_precision_models_are_timed_in_double_precision():
    model = convolutions(1).double()
    assert measure_speedup(model, model, (3, 8, 8), precision=1, max_seconds=0.1).output_error == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"batch": 0}, "batch.*0"),
        ({"batch": 1.5}, "batch"),
        ({"batch": True}, "batch.*True"),
        ({"threads": True}, "threads.*True"),
        ({"max_seconds": "5"}, "max_seconds.*'5'"),
        ({"precision": None}, "precision.*None"),
        ({"threads": 0}, "threads.*0"),
        ({"threads": 4096}, "threads.*4096"),
        ({"precision": math.nan}, "precision"),
        ({"precision": -1}, "precision"),
        ({"max_seconds": math.inf}, "max_seconds"),
        ({"input_size": (3, 8)}, "input_size"),
        ({"input_size": (3, 0, 8)}, "input_size"),
        ({"input_size": (4, 8, 8)}, r"\(1, 4, 8, 8\)"),
    ],
)
def test_bad_input_is_named_with_its_value(wrong, named):
    model = convolutions(1)
    with pytest.raises(InvalidInput, match=named):
        measure_speedup(model, model, **{"input_size": (3, 8, 8), **wrong})


def test_unknown_runtime_is_named():
    with pytest.raises(UnknownName, match="did you mean 'eager'"):
        measure_speedup(convolutions(1), convolutions(1), (3, 8, 8), runtime="eagre")


def test_models_whose_outputs_differ_in_shape_do_not_do_the_same_work():
    with pytest.raises(InvalidInput, match="differ in shape"):
        measure_speedup(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 8, 3), (3, 8, 8))
