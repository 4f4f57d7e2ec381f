"""What a task is: a data set with three splits, and the models that are trained on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn

from lowrank_bench.errors import UnknownName

Split = Literal["train", "validation", "test"]
Batch = tuple[Tensor, Tensor]


class Task(ABC):
    """A classification data set and the models that are trained on it.

    Images come out normalised, float32, (N, C, H, W); labels are int64, (N,). The test split decides nothing: tuning
    looks at validation only.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    classes: ClassVar[int]
    input_size: ClassVar[tuple[int, int, int]]
    models: ClassVar[tuple[str, ...]]
    scored: ClassVar[bool] = True
    """Whether there are images to score on; a task without is for timing alone."""

    def check_model(self, model: str) -> None:
        """Raise UnknownName, with the nearest, for a model that the task does not have."""
        if model not in self.models:
            raise UnknownName(f"model of task {self.name!r}", model, self.models)

    @abstractmethod
    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split.

        ``train`` is shuffled and varied afresh for each ``(seed, epoch)``; ``validation`` and ``test`` are fixed and
        ordered, so ``seed`` and ``epoch`` do not touch them. ``limit``: at most so many images, drawn evenly over the
        split (the same ones at each call). Raises DataMissing, saying how to get the data, where it is not on this
        machine.
        """

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
        """The trained network of that name, in eval mode, float32, on the CPU. Raises UnknownName or DataMissing."""
