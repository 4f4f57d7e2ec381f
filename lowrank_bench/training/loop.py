"""The one training loop: baselines from scratch and the fine-tuning of every method go through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_bench.errors import Diverged, InvalidInput
from lowrank_bench.tasks.task import Batch
from lowrank_bench.training.evaluate import pick_device
from lowrank_bench.training.prefetch import prefetched
from lowrank_bench.training.recipes import Recipe

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean loss, validation top-1 in percent (None without validation), seconds."""

    loss: float
    top1: float | None
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a training, in order."""

    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all epochs, validation included."""
        return sum(epoch.seconds for epoch in self.epochs)


class Regularizer(Protocol):
    """What acts on the weights during a training beside the loss and the optimiser."""

    def penalty(self) -> Tensor | float:
        """A term of the loss, at every step."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, counted from 0; may change the weights."""


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
) -> History:
    """Train a model in place by AdamW on the cross-entropy, and leave it on the CPU in eval mode.

    ``batches(i)`` gives the i-th pass over the data; passes follow each other until the recipe's steps are done.
    ``device`` is by default a GPU where there is one. ``validate`` gives a top-1 in percent after each epoch;
    ``progress`` is told (steps done, steps in all, loss). ``regularizer`` adds to the loss and acts after each step.
    Parameters that do not require gradients keep their values. Raises Diverged as soon as a loss is not finite, and
    InvalidInput where a pass has no batch or no parameter is left to train.
    """
    if not recipe.epochs:
        model.cpu().eval()
        return History(())
    device = device or pick_device()
    model.to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidInput(f"recipe {recipe.name!r} has nothing to train: every parameter of the model is frozen")
    optimizer = torch.optim.AdamW(trained, weight_decay=recipe.weight_decay, fused=True)
    stream = enumerate(prefetched(_endless(batches)))
    epochs = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(recipe.epochs):
            start = time.perf_counter()
            model.train()
            losses = []
            for step, (images, labels) in islice(stream, recipe.steps_per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(step)
                losses.append(_step(model, optimizer, images.to(device), labels.to(device), recipe, regularizer))
                if not isfinite(losses[-1]):
                    where = f"step {step + 1} of recipe {recipe.name!r}"
                    raise Diverged(f"the loss is {losses[-1]} at {where}: lower its learning rate")
                if regularizer is not None:
                    regularizer.after_step(step)
                if progress is not None:
                    progress(step + 1, recipe.epochs * recipe.steps_per_epoch, losses[-1])
            top1 = None if validate is None else validate(model.eval())
            epochs.append(Epoch(sum(losses) / len(losses), top1, time.perf_counter() - start))
    model.cpu().eval()
    return History(tuple(epochs))


def _endless(batches: Callable[[int], Iterable[Batch]]) -> Iterator[Batch]:
    index = 0
    while True:
        empty = True
        for batch in batches(index):
            empty = False
            yield batch
        if empty:
            raise InvalidInput(f"pass {index} over the training data has no batch: give at least one image")
        index += 1


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    regularizer: Regularizer | None,
) -> float:
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=_fast_bfloat16(images.device)):
        logits = model(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    if regularizer is not None:
        loss = loss + regularizer.penalty()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    optimizer.step()
    return float(loss.detach())


def _fast_bfloat16(device: torch.device) -> bool:
    """Whether half precision pays: with AVX-512 bf16, CharNet's step takes 262 ms instead of 408."""
    if device.type == "cuda":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
