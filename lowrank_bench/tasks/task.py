"""What a task is: a data set with three splits, and the models that are judged on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from lowrank_bench.compression.given_data import logits_of
from lowrank_bench.errors import InvalidInput, UnknownName
from lowrank_bench.tasks.baseline import Baseline

Split = Literal["train", "validation", "test"]
Batch = tuple[Tensor, Tensor]


class Task(ABC):
    """A classification data set and the models that are judged on it.

    Images come out normalised, float32, (N, C, H, W); labels are int64, (N,). The test split decides nothing: tuning
    looks at validation only.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    timing_version: ClassVar[int] = 1
    """Raised when the same models are timed in another form: older timings then no longer count."""
    classes: int
    """0 until the data are looked at, where they decide."""
    input_size: tuple[int, int, int]
    models: ClassVar[tuple[str, ...]]
    baselines: ClassVar[Mapping[str, Baseline]] = {}
    """The networks that the task trains itself: what ``lowrank-bench train`` knows."""
    scored: ClassVar[bool] = True
    """Whether there are images to score on; a task without is for timing alone."""
    settles_unchanged: ClassVar[bool] = True
    """Whether the statistics of batch norms are estimated anew also where a method changed no layer."""
    size_remedy: ClassVar[str] = ""
    """What a user can do about a network that does not take images of this size."""
    timing_reads_brought: ClassVar[bool] = True
    """Whether each process of a timing makes sure of what ``brought`` tells; not where that looks at many images, which
    do not change a time.
    """

    def __init__(self, argument: str = "") -> None:
        """``argument``: what follows the task's name and a colon, for tasks that take one. Raises InvalidInput."""
        if argument:
            raise InvalidInput(f"task '{self.name}:{argument}': {self.name} takes nothing after its name")

    @classmethod
    def spelled(cls, argument: str) -> str:
        """The argument as every spelling of what it stands for comes out."""
        return argument

    def for_model(self, model: str) -> Self:
        """The task as that model wants it, where the size or the preparation of the images depends on the model."""
        return self

    def check_model(self, model: str) -> None:
        """Raise UnknownName, with the nearest, for a model that the task does not have."""
        if model not in self.models:
            raise UnknownName(f"model of task {self.name!r}", model, self.models)

    def check_ready(self, model: str) -> None:
        """Raise what would stop a trial of this model, before any work is done: what ``load`` and ``batches`` raise,
        and InvalidInput for a network that does not take the images or has other classes than they.
        """
        network = self.load(model)
        images = torch.zeros(1, *self.input_size)
        if self.scored:
            images, _ = next(self.batches("validation", 1, limit=1))
        try:
            with torch.inference_mode():
                outputs = network(images)
        except Exception as error:  # whatever a layer raises at a wrong shape, or the user's code
            size, reason = tuple(images.shape[1:]), next(iter(str(error).splitlines()), "")
            raise InvalidInput(
                f"model {model!r} does not take images of size {size}, (C, H, W): {type(error).__name__}: {reason}"
                + self.size_remedy
            ) from error
        outputs = logits_of(outputs, f"model {model!r}")
        if self.scored and tuple(outputs.shape) != (1, self.classes):
            raise InvalidInput(
                f"model {model!r} gives outputs of shape {tuple(outputs.shape)} for one image, and task {self.name!r} "
                f"has {self.classes} classes: {self.classes_remedy(model)}"
            )

    def classes_remedy(self, model: str) -> str:
        """What a user can do about a network of other classes."""
        return f"bring weights trained for these, as {model.partition('@')[0]}@FILE"

    def brought(self, model: str) -> int:
        """Checksum of what decides a trial and has no declared version: the user's weights, code and images. 0: there
        is nothing of the kind.
        """
        return 0

    @abstractmethod
    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split.

        ``train`` is shuffled and varied afresh for each ``(seed, epoch)``; ``validation`` and ``test`` are fixed and
        ordered, so ``seed`` and ``epoch`` do not touch them. ``limit``: at most so many images, drawn evenly over the
        split (the same ones at each call). Raises DataMissing, saying how to get the data, where it is not on this
        machine, and InvalidData naming the file that is damaged.
        """

    def calibration_batches(self, *, seed: int, limit: int) -> Iterator[Batch]:
        """At most so many training images for statistics, of batch norms and of activations that are quantized. Raises
        what ``batches`` raises.
        """
        return self.batches("train", seed=seed, limit=limit)

    @abstractmethod
    def group_sizes(self, split: Split) -> list[int] | None:
        """Sizes of the consecutive groups of images that are resampled together (e.g. one font family); None: every
        image on its own.
        """

    @abstractmethod
    def build(self, model: str) -> nn.Module:
        """The untrained network of that name, in training mode. Raises UnknownName."""

    @abstractmethod
    def load(self, model: str) -> nn.Module:
        """The trained network of that name, in eval mode, float32, on the CPU. Raises UnknownName, InvalidWeights or
        DataMissing.
        """


def evenly(count: int, limit: int | None) -> Tensor:
    """Indices of at most ``limit`` of ``count`` images, evenly spaced."""
    kept = count if limit is None else min(limit, count)
    return torch.arange(kept) * count // max(kept, 1)
