"""A model is exported to ONNX once for all the processes of a measurement, and its seconds are told all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from lowrank_bench.measurement import exports
from lowrank_bench.measurement.exports import Exports
from lowrank_bench.running import timing
from lowrank_bench.trial import Measurement, Trial

IMAGES = torch.zeros(2, 3, 4, 4)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that went through the exporter, which takes 20 ms here."""
    models: list[nn.Module] = []

    def export(model: nn.Module, images: torch.Tensor) -> bytes:
        models.append(model)
        time.sleep(0.02)
        return f"{len(models)}".encode()

    monkeypatch.setattr(exports, "_export", export)
    return models


def conv(seed: int, **options: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Conv2d(3, 4, 3, **options)


def test_a_copy_and_another_process_find_the_file_and_count_its_seconds(exported: list[nn.Module], tmp_path: Path):
    first = Exports(tmp_path)
    assert first.onnx(conv(0), IMAGES) == b"1"
    assert first.spared == 0
    assert first.onnx(conv(0), IMAGES) == b"1"
    other = Exports(tmp_path)
    assert other.onnx(conv(0), IMAGES) == b"1"
    assert (other.spared, len(exported)) == (pytest.approx(first.spared), 1)
    assert first.spared >= 0.02


def test_without_a_folder_only_copies_share(exported: list[nn.Module]):
    mine = Exports()
    assert [mine.onnx(conv(0), IMAGES), mine.onnx(conv(0), IMAGES), Exports().onnx(conv(0), IMAGES)] == [
        b"1",
        b"1",
        b"2",
    ]


def test_other_weights_another_structure_and_another_batch_are_exported(exported: list[nn.Module], tmp_path: Path):
    found = Exports(tmp_path)
    models = [(conv(0), IMAGES), (conv(1), IMAGES), (conv(0, padding=1), IMAGES), (conv(0), IMAGES[:1])]
    assert [found.onnx(*each) for each in models] == [b"1", b"2", b"3", b"4"]


class Repeated(nn.Module):
    """What it computes depends on a number and on a buffer that no state dict holds."""

    def __init__(self, times: int, shift: float) -> None:
        super().__init__()
        self.conv, self.times = conv(0), times
        self.register_buffer("shift", torch.tensor(shift), persistent=False)


def test_networks_that_differ_in_what_no_state_dict_holds_have_files_of_their_own(exported: list[nn.Module]):
    found = Exports()
    models = [Repeated(1, 0.0), Repeated(2, 0.0), Repeated(1, 1.0), Repeated(1, 0.0)]
    assert [found.onnx(model, IMAGES) for model in models] == [b"1", b"2", b"3", b"1"]


def test_networks_of_other_code_but_one_structure_have_files_of_their_own(
    exported: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(timing, "pin_cores", lambda _threads: None)
    setting = {"runtime": "onnxruntime", "threads": 1, "batch": 1, "precision": 0.5, "max_seconds": 1}
    found = []
    for model, task in (("nets:plain", "speed"), ("nets:squared", "speed"), ("nets:plain", "speed:3x4x4")):
        trial = Trial(task=task, model=model, method="identity", recipe="none")
        with monkeypatch.context() as patch:
            patch.setattr(timing, "get_task", lambda *_: None)
            process = timing.TimingProcess(trial, Measurement(trial="t", machine="m", **setting), tmp_path, tmp_path)
        found.append(Exports(process.exports).onnx(conv(0), IMAGES))
    assert found == [b"1", b"2", b"3"]
