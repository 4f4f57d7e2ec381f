"""The stages of one trial: load, compress, recalibrate, evaluate, tune, evaluate, save."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_bench.compression.method import Job
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.registry import method_class
from lowrank_bench.measurement.quality import agreement, pack_hits
from lowrank_bench.record import Epoch, LayerSize, Quality, Size
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.task import Batch, Task
from lowrank_bench.training.evaluate import predicted_and_true, predictions, top1
from lowrank_bench.training.loop import History
from lowrank_bench.training.recalibrate import recalibrate
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.training.tuning import check_recipe, tune
from lowrank_bench.trial import Trial

RECALIBRATION_IMAGES = 2048
Report = Callable[[str, float], None]
"""(stage, share done from 0 to 1)."""


class Stopwatch:
    """Seconds per stage, told to ``report`` as the stages begin."""

    def __init__(self, report: Report) -> None:
        self.report, self.seconds = report, dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        self.report(name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def run_trial(trial: Trial, models: Path, watch: Stopwatch) -> tuple[Size, Quality | None]:
    """Make a trial's model and judge it; saves it under ``models / key`` and returns its size and its quality, None
    where the task has no images. Tuning that was cut short goes on from its last whole epoch.

    The test images are looked at once, at the end, for the model before and after tuning; only validation images are
    seen on the way.
    """
    torch.manual_seed(trial.seed)
    np.random.seed(trial.seed)
    task, recipe = get_task(trial.task, trial.model), get_recipe(trial.recipe)
    method = method_class(trial.method)(seed=trial.seed, **trial.options)
    check_recipe(method, recipe)
    data = partial(_training_data, task, trial.seed)
    job = Job(task.input_size, trial.budget, trial.ranks, data, trial.recipe, speed_only=not task.scored)
    with watch.stage("load"):
        dense = task.load(trial.model)
    with watch.stage("decompose"):
        compressed = method.compress(dense, job)
    if not task.scored:
        compressed.save(models / trial.key, values=False)
        return _size(compressed), None
    settle = partial(_recalibrate, task, trial.seed)
    with watch.stage("recalibrate"):
        settle(compressed.model)
    with watch.stage("evaluate"):
        before, labels = predicted_and_true(compressed.model, task.batches("test"))
    resume = models / f"{trial.key}.resume"
    with watch.stage("finetune"):
        compressed, history = tune(
            compressed,
            dense,
            method,
            job,
            lambda epoch: task.batches("train", recipe.batch_size, seed=trial.seed, epoch=epoch),
            recipe,
            seed=trial.seed,
            validate=lambda model: top1(model, task.batches("validation")),
            progress=lambda step, steps, _loss: watch.report("finetune", step / steps),
            settle=settle,
            resume=resume,
        )
    with watch.stage("evaluate"):
        tuned = bool(history.epochs)
        after = predictions(compressed.model, task.batches("test")) if tuned else before
        original = _original_predictions(dense, task, models / f"{_original(trial)}.npy")
        quality = _quality(task, original, before, after, labels, history)
    with watch.stage("save"):
        compressed.save(models / trial.key)
        resume.unlink(missing_ok=True)
    return _size(compressed), quality


def _recalibrate(task: Task, seed: int, model: nn.Module) -> None:
    recalibrate(model, task.batches("train", seed=seed, limit=RECALIBRATION_IMAGES))


def _training_data(task: Task, seed: int, epoch: int) -> Iterator[Batch]:
    return task.batches("train", seed=seed, epoch=epoch)


def _original(trial: Trial) -> str:
    """A name for the dense model as it came and the images that it is judged on."""
    versions = {name: trial.versions.get(name) for name in ("task", "brought")}
    said = json.dumps([trial.task, trial.model, versions], sort_keys=True)
    return f"original-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _original_predictions(dense: nn.Module, task: Task, cache: Path) -> Tensor:
    """Predictions of the dense model as it came, on the test images; kept on disk, since every trial of a sweep needs
    them.
    """
    if cache.exists():
        return torch.from_numpy(np.load(cache))
    predicted = predictions(dense, task.batches("test"))
    cache.parent.mkdir(parents=True, exist_ok=True)
    draft = cache.with_suffix(f".{os.getpid()}.npy")
    np.save(draft, predicted.numpy())
    draft.replace(cache)
    return predicted


def _quality(task: Task, original: Tensor, before: Tensor, after: Tensor, labels: Tensor, history: History) -> Quality:
    return Quality(
        images=len(labels),
        group_sizes=task.group_sizes("test"),
        top1_original=_percent(original == labels),
        top1_before=_percent(before == labels),
        top1_after=_percent(after == labels),
        agreement=agreement(after.numpy(), original.numpy()),
        hits_before=pack_hits((before == labels).numpy()),
        hits_after=pack_hits((after == labels).numpy()),
        epochs=[Epoch(loss=e.loss, validation_top1=e.top1, seconds=e.seconds) for e in history.epochs],
    )


def _size(compressed: Compressed) -> Size:
    wanted = set(LayerSize.model_fields)
    layers = {name: LayerSize(**layer.model_dump(include=wanted)) for name, layer in compressed.plan.layers.items()}
    cost, dense = compressed.cost, compressed.dense_cost
    return Size(
        params=cost.params,
        macs=cost.macs,
        bytes=cost.bytes,
        dense_params=dense.params,
        dense_macs=dense.macs,
        dense_bytes=dense.bytes,
        layers=layers,
        skipped=compressed.skipped,
    )


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())
