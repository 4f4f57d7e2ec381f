"""The stages of one trial: load, compress, recalibrate, evaluate, tune, evaluate, save. Those that an earlier attempt
finished are read back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_bench.atomic import drafts
from lowrank_bench.compression.history import History
from lowrank_bench.compression.job import Hooks, Job
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.registry import method_class
from lowrank_bench.errors import Diverged, NonConforming
from lowrank_bench.measurement.clock import Clock
from lowrank_bench.measurement.quality import agreement, pack_hits
from lowrank_bench.record import Epoch, LayerSize, Quality, Size
from lowrank_bench.running.cache import StageCache
from lowrank_bench.running.code import source_of
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.unchanged import check_unchanged
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.task import Batch, Task
from lowrank_bench.training.evaluate import predicted_and_true, predictions, top1
from lowrank_bench.training.prefetch import prefetched
from lowrank_bench.training.recalibrate import RECALIBRATION_IMAGES, recalibrate
from lowrank_bench.training.recipes import get_recipe
from lowrank_bench.training.tuning import check_recipe, tune
from lowrank_bench.trial import Trial

STAGES = ".stages"
TRAINING, TUNING = "training.safetensors", "tuning.safetensors"
VALIDATED = 10_000
"""Of more validation images so many are looked at after each epoch, evenly chosen."""


def run_trial(trial: Trial, models: Path, watch: Stopwatch) -> tuple[Size, Quality | None]:
    """Make a trial's model and judge it; saves it under ``models / key`` and returns its size and its quality, None
    where the task has no images. What an attempt that was cut short had finished is read back, and its training, within
    the method or in tuning, goes on after the last whole epoch.

    The model is judged on the test images twice, before tuning and after it; nothing is decided by them. Tuning looks
    at validation images only.
    """
    torch.manual_seed(trial.seed)
    np.random.seed(trial.seed)
    work = _Work(trial, watch)
    if not work.task.scored:
        compressed, _ = work.compress(None)
        compressed.save(models / trial.key, values=False)
        return _size(compressed), None
    stages = StageCache(models / f"{trial.key}{STAGES}" / source_of(type(work.method)), work.dense, watch)
    compressed, made = stages.model("compressed", partial(work.compress, stages.folder / TRAINING))
    if work.task.settles_unchanged or compressed.plan.layers or compressed.plan.widths:
        with watch.stage("recalibrate"):
            work.settle(compressed.model)
    before = stages.tensors("before", partial(work.judge, compressed))
    tuned, history = stages.model("tuned", partial(work.finetune, compressed, stages.folder / TUNING))
    after = stages.tensors("after", partial(work.judge, tuned)) if history.epochs else before
    with watch.stage("evaluate"):
        original = _original_predictions(work.dense, work.task, models / f"{original_name(trial)}.npy")
        quality = _quality(work.task, original, before, after, history, made)
    with watch.stage("save"):
        tuned.save(models / trial.key)
    return _size(tuned), quality


def check_compressed(model: nn.Module, dense: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Raise Diverged where a compressed model holds a value that is not finite, and NonConforming where its output is
    not of the dense model's shape. Leaves it in eval mode.
    """
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise Diverged(f"tensor {name!r} of the compressed model holds values that are not finite")
    images = torch.zeros(2, *input_size)
    with torch.inference_mode():
        wanted = tuple(dense(images).shape)
        try:
            found = tuple(model.eval()(images).shape)
        except (RuntimeError, ValueError) as error:
            raise NonConforming(f"the compressed model does not run on images {tuple(images.shape)}: {error}") from None
    if found != wanted:
        raise NonConforming(f"the compressed model's output is {found} where the dense model's is {wanted}")


def remove_stages(models: Path, key: str) -> None:
    """Forget what a trial finished on the way, once its record is there."""
    shutil.rmtree(models / f"{key}{STAGES}", ignore_errors=True)


def original_name(trial: Trial) -> str:
    """A name for the dense model as it came and the images that it is judged on."""
    versions = {name: trial.versions.get(name) for name in ("task", "brought")}
    said = json.dumps([trial.task, trial.model, versions], sort_keys=True)
    return f"original-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


class _Work:
    """The stages of one trial, each timed, and what they share."""

    def __init__(self, trial: Trial, watch: Stopwatch) -> None:
        self.seed, self.watch = trial.seed, watch
        self.task, self.recipe = get_task(trial.task, trial.model), get_recipe(trial.recipe)
        self.method = method_class(trial.method)(seed=trial.seed, **trial.options)
        check_recipe(self.method, self.recipe)
        data = partial(_training_data, self.task, trial.seed)
        self.job = Job(
            self.task.input_size,
            trial.budget,
            trial.ranks,
            data,
            trial.recipe,
            speed_only=not self.task.scored,
            trained_by=baseline.recipe.name if (baseline := self.task.baselines.get(trial.model)) else None,
            timer=Clock(),  # whoever runs a trial with a budget in latency gives it the machine alone
        )
        with watch.stage("load"):
            self.dense = self.task.load(trial.model)
            check_unchanged(trial, self.task)  # after what is missing here was named

    def compress(self, resume: Path | None) -> tuple[Compressed, History]:
        hooks = Hooks(self.validate, partial(self.report, "decompose"), resume)
        with self.watch.stage("decompose"):
            compressed = self.method.compress(self.dense, replace(self.job, hooks=hooks))
        self.watch.add("decompose", compressed.history.kept_seconds)
        check_compressed(compressed.model, self.dense, self.task.input_size)
        return compressed, compressed.history

    def validate(self, model: nn.Module) -> float:
        return top1(model, self.task.batches("validation", limit=VALIDATED))

    def report(self, stage: str, step: int, steps: int, _loss: float) -> None:
        self.watch.report(stage, step / steps)

    def settle(self, model: nn.Module) -> None:
        _recalibrate(self.task, self.seed, model)

    def judge(self, compressed: Compressed) -> dict[str, Tensor]:
        with self.watch.stage("evaluate"):
            found = predicted_and_true(compressed.model, self.task.batches("test"))
        return dict(zip(("predicted", "labels"), found, strict=True))

    def finetune(self, compressed: Compressed, resume: Path) -> tuple[Compressed, History]:
        with self.watch.stage("finetune"):
            tuned, history = tune(
                compressed,
                self.dense,
                self.method,
                self.job,
                lambda epoch: prefetched(
                    self.task.batches("train", self.recipe.batch_size, seed=self.seed, epoch=epoch)
                ),
                self.recipe,
                seed=self.seed,
                validate=self.validate,
                progress=partial(self.report, "finetune"),
                settle=self.settle,
                resume=resume,
            )
        self.watch.add("finetune", history.kept_seconds)
        check_compressed(tuned.model, self.dense, self.task.input_size)
        return tuned, history


def _recalibrate(task: Task, seed: int, model: nn.Module) -> None:
    recalibrate(model, task.calibration_batches(seed=seed, limit=RECALIBRATION_IMAGES))


def _training_data(task: Task, seed: int, epoch: int) -> Iterator[Batch]:
    return prefetched(task.batches("train", seed=seed, epoch=epoch))


def _original_predictions(dense: nn.Module, task: Task, cache: Path) -> Tensor:
    """Predictions of the dense model as it came, on the test images; kept on disk, since every trial of a sweep needs
    them.
    """
    with suppress(OSError, ValueError, EOFError):  # not there yet, or damaged
        return torch.from_numpy(np.load(cache, allow_pickle=False))
    predicted = predictions(dense, task.batches("test"))
    with drafts(cache) as (draft,), draft.open("wb") as file:
        np.save(file, predicted.numpy())
    return predicted


def _quality(
    task: Task,
    original: Tensor,
    judged_before: dict[str, Tensor],
    judged_after: dict[str, Tensor],
    tuning: History,
    making: History,
) -> Quality:
    before, after, labels = judged_before["predicted"], judged_after["predicted"], judged_before["labels"]
    return Quality(
        images=len(labels),
        group_sizes=task.group_sizes("test"),
        top1_original=_percent(original == labels),
        top1_before=_percent(before == labels),
        top1_after=_percent(after == labels),
        agreement=agreement(after.numpy(), original.numpy()),
        hits_before=pack_hits((before == labels).numpy()),
        hits_after=pack_hits((after == labels).numpy()),
        epochs=_told(tuning),
        method_epochs=_told(making),
    )


def _told(history: History) -> list[Epoch]:
    return [Epoch(loss=e.loss, validation_top1=e.top1, seconds=e.seconds) for e in history.epochs]


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
