"""Predicted classes and top-1 of a model, without changing it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lowrank_bench.compression.watching import evaluating
from lowrank_bench.errors import InvalidInput
from lowrank_bench.tasks.task import Batch


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters are; the CPU for one without."""
    return next((value.device for value in model.parameters()), torch.device("cpu"))


def predictions(model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None) -> Tensor:
    """Predict the class of each image, int64, (N,); the model stays on its device and in its mode."""
    return predicted_and_true(model, batches, device)[0]


def top1(model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None) -> float:
    """Top-1 in percent. Raises InvalidInput where there is no image."""
    predicted, labels = predicted_and_true(model, batches, device)
    if not len(labels):
        raise InvalidInput("no image to evaluate on: give at least one batch")
    return 100 * float((predicted == labels).double().mean())


def predicted_and_true(
    model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Predicted and true class of each image, int64, (N,) each; the model stays on its device and in its mode."""
    device = device or pick_device()
    home = device_of(model)
    model.to(device)
    predicted, labels = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    try:
        with evaluating(model), torch.inference_mode():
            for images, batch_labels in batches:
                predicted.append(model(images.to(device)).argmax(dim=1).cpu())
                labels.append(batch_labels)
    finally:
        model.to(home)
    return torch.cat(predicted), torch.cat(labels)
