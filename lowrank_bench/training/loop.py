"""The one training loop: baselines from scratch and the fine-tuning of every method go through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_bench.compression.given_data import check_labels, logits_of
from lowrank_bench.compression.history import Epoch, History
from lowrank_bench.compression.watching import evaluating
from lowrank_bench.errors import Diverged, InvalidInput
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.task import Batch
from lowrank_bench.training.batches import trainable
from lowrank_bench.training.evaluate import device_of, pick_device
from lowrank_bench.training.resume import Saved, SavePoint, copied_state

Progress = Callable[[int, int, float], None]


class Regularizer(Protocol):
    """What acts on the weights during a training beside the loss and the optimiser."""

    def penalty(self) -> Tensor | float:
        """A term of the loss, at every step."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, counted from 0; may change the weights."""

    def state(self) -> dict[str, Tensor]:
        """What it remembers from step to step, beside the weights."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Remember what ``state`` gave."""


def train(
    model: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    recipe: Recipe,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    progress: Progress | None = None,
    regularizer: Regularizer | None = None,
    teacher: nn.Module | None = None,
    resume: Path | None = None,
) -> History:
    """Train a model in place by AdamW on the cross-entropy, unless the recipe takes no labels, and leave it on the CPU
    in eval mode.

    ``batches(i)`` gives the i-th pass over the data; passes follow each other until the recipe's steps are done. With a
    batch norm, batches of a single image are left out.
    ``device`` is by default a GPU where there is one. ``validate`` gives a top-1 in percent after each epoch;
    ``progress`` is told (steps done, steps in all, loss). ``regularizer`` adds to the loss and acts after each step.
    ``teacher``: the network in eval mode from which a recipe with ``distillation`` learns. ``resume``: a file that
    keeps the state after every epoch; where it holds that of this very training, that goes on from there, with the
    weights that it would have had in one go. The caller removes it in the end.

    Parameters that do not require gradients keep their values. Raises Diverged as soon as a loss is not finite, and
    InvalidInput where a pass has no batch, no parameter is left to train, or a recipe with distillation has no teacher.
    """
    if not recipe.epochs:
        model.cpu().eval()
        return History()
    device = device or pick_device()
    model.to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidInput(f"recipe {recipe.name!r} has nothing to train: every parameter of the model is frozen")
    if recipe.distillation and teacher is None:
        raise InvalidInput(f"recipe {recipe.name!r} learns from a trained network: give one, or set distillation = 0")
    optimizer = torch.optim.AdamW(trained, weight_decay=recipe.weight_decay, fused=True)
    stream = enumerate(_endless(batches, model))
    patience = recipe.patience if validate is not None else 0
    epochs: list[Epoch] = []
    best: dict[str, Tensor] = {}
    kept = 0
    with (
        torch.enable_grad(),
        torch.random.fork_rng(),
        _helping(teacher if recipe.distillation else None, device) as helper,
    ):
        torch.manual_seed(seed)
        point = None if resume is None else SavePoint(resume, recipe, seed)
        if point is not None and (found := point.load(model, optimizer)) is not None:
            epochs, best, kept = found.epochs, found.best, len(found.epochs)
            if regularizer is not None:
                regularizer.load_state(found.acting)
            next(islice(stream, kept * recipe.steps_per_epoch - 1, None))
        while len(epochs) < recipe.epochs and not _stale(epochs, patience):
            start = time.perf_counter()
            model.train()
            losses = []
            for step, (images, labels) in islice(stream, recipe.steps_per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(step)
                pair = images.to(device), labels.to(device)
                losses.append(_step(model, optimizer, pair, recipe, regularizer, helper))
                if not isfinite(losses[-1]):
                    where = f"step {step + 1} of recipe {recipe.name!r}"
                    raise Diverged(f"the loss is {losses[-1]} at {where}: lower its learning rate")
                if regularizer is not None:
                    regularizer.after_step(step)
                if progress is not None:
                    progress(step + 1, recipe.epochs * recipe.steps_per_epoch, losses[-1])
            top1 = None if validate is None else validate(model.eval())
            epochs.append(Epoch(sum(losses) / len(losses), top1, time.perf_counter() - start))
            if patience and _best(epochs) == len(epochs) - 1:
                best = copied_state(model)
            if point is not None:
                over = len(epochs) == recipe.epochs or _stale(epochs, patience)
                acting = {} if regularizer is None else regularizer.state()
                point.save(model, None if over else optimizer, Saved(epochs, best, acting))
    if best:
        model.load_state_dict(best)
    model.cpu().eval()
    return History(tuple(epochs), kept)


def _endless(batches: Callable[[int], Iterable[Batch]], model: nn.Module) -> Iterator[Batch]:
    index = 0
    while True:
        empty = True
        for batch in trainable(batches(index), model):
            empty = False
            yield batch
        if empty:
            raise InvalidInput(
                f"pass {index} over the training data has no batch: give at least one image, and two with batch norm"
            )
        index += 1


@contextmanager
def _helping(teacher: nn.Module | None, device: torch.device) -> Iterator[nn.Module | None]:
    """The teacher on the device, in eval mode; afterwards it is where and as it was."""
    if teacher is None:
        yield None
        return
    home = device_of(teacher)
    try:
        with evaluating(teacher):
            yield teacher.to(device)
    finally:
        teacher.to(home)


def _best(epochs: Sequence[Epoch]) -> int:
    """The first epoch with the highest validation top-1."""
    return max(range(len(epochs)), key=lambda number: epochs[number].top1 or 0.0)


def _stale(epochs: Sequence[Epoch], patience: int) -> bool:
    return bool(patience and epochs) and len(epochs) - 1 - _best(epochs) >= patience


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    recipe: Recipe,
    regularizer: Regularizer | None,
    teacher: nn.Module | None,
) -> float:
    images, labels = batch
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=_fast_bfloat16(images.device)):
        logits = logits_of(model(images), "in training mode the model")
        with torch.no_grad():
            wanted = None if teacher is None else teacher(images)
    alone = recipe.unlabelled and regularizer is not None
    if not alone:
        check_labels(labels, logits.shape[1])
    loss = torch.zeros((), device=labels.device) if alone else _of_outputs(logits.float(), labels, wanted, recipe)
    if regularizer is not None:
        loss = loss + regularizer.penalty()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    optimizer.step()
    return float(loss.detach())


def _of_outputs(logits: Tensor, labels: Tensor, wanted: Tensor | None, recipe: Recipe) -> Tensor:
    """The cross-entropy against the labels and, as far as the recipe says so, the distance from the teacher."""
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if wanted is None:
        return loss
    return torch.lerp(loss, _distillation(logits, wanted.float(), recipe.temperature), recipe.distillation)


def _distillation(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened outputs; the square keeps the gradients' scale (Hinton et al. 2015)."""
    soft, target = ((values / temperature).log_softmax(1) for values in (logits, wanted))
    return temperature**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether half precision pays: with AVX-512 bf16, CharNet's step takes 262 ms instead of 408."""
    if device.type == "cuda":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
