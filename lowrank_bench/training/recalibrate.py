"""Batch-norm recalibration: a compressed network's feature statistics are no longer those its batch norms remember."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.tasks.task import Batch
from lowrank_bench.training.evaluate import pick_device


def recalibrate(model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None) -> int:
    """Re-estimate the running statistics of every batch norm as the plain average over ``batches``; returns how many
    there are.

    Nothing else changes: weights stay, and the model ends on the CPU in eval mode. Without a batch norm nothing is run.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    device = device or pick_device()
    momenta = [norm.momentum for norm in norms]
    model.to(device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.inference_mode():
        for images, _ in batches:
            model(images.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.cpu().eval()
    return len(norms)
