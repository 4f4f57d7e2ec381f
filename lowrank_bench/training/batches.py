"""Batches that a network can train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.tasks.task import Batch


def rebatched(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same images in batches of at most ``size``, even ones."""
    for images, labels in batches:
        parts = max(1, -(-len(images) // size))
        yield from zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)


def trainable(batches: Iterable[Batch], model: nn.Module) -> Iterator[Batch]:
    """The same batches; where the model has a batch norm, without those of a single image, whose 1x1 maps have no
    variance.
    """
    least = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
    return (batch for batch in batches if len(batch[0]) >= least)
