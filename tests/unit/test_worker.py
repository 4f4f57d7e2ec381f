"""What a child does with its job: every named error has its status, and runtimes of fewer bits are judged on images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.errors import NO_MEMORY, Diverged, ExportFailed, NonConforming, RuntimeMissing
from lowrank_bench.measurement.converters import Wish
from lowrank_bench.measurement.quality import unpack_hits
from lowrank_bench.measurement.runtimes import RUNTIMES, Runtime
from lowrank_bench.record import Status
from lowrank_bench.running import timing, worker
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.timing import TimingProcess
from lowrank_bench.running.worker import ProbeJob, TrialJob
from lowrank_bench.trial import Budget, Measurement, Trial

TRIAL = Trial(task="blobs", model="small", method="tucker", ranks="full", recipe="none")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeMissing("runtime 'openvino' is not ready: pip install it"), Status.SKIPPED),
        (ExportFailed("runtime 'compile' cannot take this model"), Status.NOT_EXPORTABLE),
        (Diverged("weights that are not finite"), Status.DIVERGED),
        (NonConforming("an output of another shape"), Status.FAILED),
        (MemoryError("too large"), Status.OUT_OF_MEMORY),
        *((RuntimeError(f"DefaultCPUAllocator: {words}"), Status.OUT_OF_MEMORY) for words in NO_MEMORY),
        (ZeroDivisionError("unforeseen"), Status.FAILED),
    ],
)
def test_a_missing_runtime_is_skipped_with_its_hint_and_other_ends_have_their_names(monkeypatch, error, status):
    def fail(seconds: float) -> None:
        raise error

    monkeypatch.setattr(worker, "probe", fail)
    outcome = worker._outcome(ProbeJob(seconds=1.0), Stopwatch(lambda stage, share: None))
    assert (outcome.status, outcome.reason) == (status, f"{type(error).__name__}: {error}")


def test_the_seconds_of_a_stage_that_fails_are_kept():
    watch = Stopwatch(lambda stage, share: None)
    with pytest.raises(Diverged), watch.stage("finetune"):
        raise Diverged("weights that are not finite")
    assert watch.seconds["finetune"] > 0


@pytest.mark.parametrize(
    ("budget", "kept"), [(Budget(macs=4), True), (Budget(latency=2, runtime="eager", threads=1, batch=1), False)]
)
def test_a_trial_keeps_its_memory_unless_it_times_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: Budget, kept: bool
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: called.append(True))
    monkeypatch.setattr(worker, "run_trial", lambda *given: (None, None))
    trial = TRIAL.model_copy(update={"ranks": None, "budget": budget})
    worker._outcome(TrialJob(trial=trial, models=tmp_path), Stopwatch(lambda stage, share: None))
    assert called == [True] * kept


class Blobs:
    """Two classes, told apart by the sign of the image; one label of seven is wrong."""

    scored = True
    input_size = (1, 6, 6)

    def load(self, model: str) -> nn.Module:
        net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        with torch.no_grad():
            net[0].weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3))
        return net

    def batches(self, split: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.arange(70) % 2
        images = (2.0 * labels - 1).view(-1, 1, 1, 1).expand(-1, 1, 6, 6)
        labels = torch.where(torch.arange(70) % 7 == 0, 1 - labels, labels)
        yield from zip(images.split(batch_size), labels.split(batch_size), strict=True)


def test_top_1_in_a_runtime_counts_every_test_image_in_order(monkeypatch, tmp_path: Path):
    def in_bfloat16(model: nn.Module, wish: Wish):
        return lambda: model.bfloat16()(wish.images.bfloat16()).float(), 0

    monkeypatch.setitem(RUNTIMES, "halves", Runtime(in_bfloat16, arithmetic="bfloat16"))
    monkeypatch.setattr(timing, "get_task", lambda name, model: Blobs())
    lrb.compress(Blobs().load("small"), "identity", input_size=(1, 6, 6)).save(tmp_path / TRIAL.key)
    setting = {"runtime": "halves", "threads": 1, "batch": 1, "precision": 0.1, "max_seconds": 1.0}
    measurement = Measurement(trial=TRIAL.key, machine="m", **setting)
    process, watch = TimingProcess(TRIAL, measurement, tmp_path, tmp_path), Stopwatch(lambda stage, share: None)
    found = process.judge(TRIAL, watch)
    assert (found.images, found.top1, found.calibration_images) == (70, pytest.approx(600 / 7), 0)
    assert unpack_hits(found.hits, 70).tolist() == [number % 7 != 0 for number in range(70)]


def test_a_process_keeps_the_load_that_it_found_before_it_added_to_it(monkeypatch, tmp_path: Path):
    done = []
    monkeypatch.setattr(timing, "load_average", lambda: 1.25 + len(done))
    monkeypatch.setattr(timing, "pin_cores", done.append)
    monkeypatch.setattr(timing, "get_task", lambda name, model: Blobs())
    lrb.compress(Blobs().load("small"), "identity", input_size=(1, 6, 6)).save(tmp_path / TRIAL.key)
    setting = {"runtime": "eager", "threads": 1, "batch": 1, "precision": 0.5, "max_seconds": 0.1}
    measurement = Measurement(trial=TRIAL.key, machine="m", **setting)
    found = TimingProcess(TRIAL, measurement, tmp_path, tmp_path).time(TRIAL, Stopwatch(lambda stage, share: None))
    assert (found.load, done) == (1.25, [1])
