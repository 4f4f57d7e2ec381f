"""Batch-norm recalibration: a compressed network's feature statistics are no longer those its batch norms remember."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.compression.watching import input_of
from lowrank_bench.errors import InvalidInput
from lowrank_bench.tasks.task import Batch
from lowrank_bench.training.batches import trainable
from lowrank_bench.training.evaluate import device_of, pick_device

RECALIBRATION_IMAGES = 2048
"""On how many training images a compressed network's are estimated."""


def recalibrate(model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None) -> int:
    """Re-estimate the running statistics of every batch norm as the average over ``batches``, each weighed by its
    images, but for those of a single one; returns how many norms there are. Raises InvalidInput where no batch is left.

    Nothing else changes: weights stay, norms that no image passes keep what they remember, and the model ends on its
    device in eval mode. Without a batch norm nothing is run.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    device, home = device or pick_device(), device_of(model)
    momenta = [norm.momentum for norm in norms]
    model.to(device).eval()
    passed: dict[_BatchNorm, int] = {}  # images so far

    def weigh(norm: _BatchNorm, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if norm not in passed:
            norm.reset_running_stats()
        count = len(input_of(inputs, named))
        passed[norm] = passed.get(norm, 0) + count
        norm.momentum = count / passed[norm]

    hooks = [norm.register_forward_pre_hook(weigh, with_kwargs=True) for norm in norms]
    for norm in norms:
        norm.train()
    seen = 0
    try:
        with torch.inference_mode():
            for images, _ in trainable(batches, model):
                model(images.to(device))
                seen += len(images)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.to(home).eval()
    if not seen:
        raise InvalidInput("batch norm needs batches of at least two images to be recalibrated on: give some")
    return len(norms)
