"""What a user's data and outputs must be: looked at when they are read, before anything is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from lowrank_bench.errors import InvalidData, InvalidInput

Batch = tuple[Tensor, Tensor]


def epochs_of(data: Any) -> Callable[[int], Iterable[Any]]:
    """Batches that can be read again and again, or a function epoch -> batches, as such a function. Raises InvalidInput
    for what is neither.
    """
    wanted = "give a list, a DataLoader, or a function epoch -> batches that opens it anew"
    if isinstance(data, Iterator):
        raise InvalidInput(f"data is a {type(data).__name__}, which can be read once only: {wanted}")
    if hasattr(type(data), "__iter__") or hasattr(type(data), "__getitem__"):  # its type: a class may be the function
        return lambda _epoch: data
    if not callable(data):
        raise InvalidInput(f"data is a {type(data).__name__}, which holds no batches: {wanted}")
    try:
        signature(data).bind(0)
    except TypeError:
        raise InvalidInput(f"data is called with the number of an epoch, and does not take it: {wanted}") from None
    except ValueError:  # of some functions that are not Python's, nothing is known
        pass
    return lambda epoch: data(epoch)


def checked(
    batches: Callable[[int], Iterable[Any]], size: tuple[int, int, int], dtype: torch.dtype
) -> Callable[[int], Iterator[Batch]]:
    """The same batches, epoch -> (images, labels). Raises InvalidData while they are read, for what is no such pair of
    tensors, and for images of another size (C, H, W) or ``dtype`` than the model's.
    """

    def read(epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches(epoch)):
            yield _pair(batch, size, dtype, f"batch {number} of data")

    return read


def _pair(batch: Any, size: tuple[int, int, int], dtype: torch.dtype, place: str) -> Batch:
    pair = batch if isinstance(batch, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise InvalidData(
            f"{place} is a {type(batch).__name__}{f' of {len(pair)}' if pair else ''}: a pair (images, labels) of "
            "tensors is wanted, such as a DataLoader gives, or a list of such pairs"
        )
    images, labels = pair
    if len(images) != len(labels):
        raise InvalidData(f"{place} holds {len(images)} images and {len(labels)} labels: give a label for each image")
    check_size(images, size, place)
    if images.dtype != dtype:
        raise InvalidData(
            f"{place} holds images in {images.dtype}, and the model computes in {dtype}: give images.to({dtype}), "
            "normalised as the model was trained"
        )
    return images, labels if labels.is_floating_point() else labels.long()


def check_size(images: Tensor, size: tuple[int, int, int], place: str) -> None:
    """Raise InvalidData, naming ``place``, unless these are images (N, C, H, W) of ``size``."""
    if tuple(images.shape[1:]) != tuple(size):
        raise InvalidData(
            f"{place} holds images {tuple(images.shape)}, and (N, C, H, W) with (C, H, W) = {tuple(size)} is what the "
            "model is compressed for: resize them, or give their size as input_size"
        )


def logits_of(outputs: Any, model: str = "the model") -> Tensor:
    """What a model gave, where that is one tensor; ``model`` names it in InvalidInput, which is raised else."""
    if isinstance(outputs, Tensor):
        return outputs
    raise InvalidInput(
        f"{model} gives a {type(outputs).__name__}, and one tensor of logits is wanted: build it without auxiliary "
        "outputs, as torchvision's with aux_logits=False"
    )


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise InvalidData unless these are (N,) whole numbers from 0 to below ``classes``."""
    if labels.ndim != 1 or labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        if labels.ndim == 1 and len(labels):
            found = f"{labels.dtype} from {labels.min():g} to {labels.max():g}"
        raise InvalidData(
            f"labels in {found}, and the model has {classes} outputs: whole numbers from 0 to {classes - 1} are wanted"
        )
