"""Data sets of small images, which are held in memory: their splits, and their variation in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lowrank_bench.errors import InvalidData
from lowrank_bench.tasks.held_out import held_out
from lowrank_bench.tasks.open_task import OpenTask
from lowrank_bench.tasks.task import Batch, Split, evenly
from lowrank_bench.tasks.variation import shuffled, uniform

MARGIN = 4


@dataclass(frozen=True)
class Labelled:
    """Images (N, C, H, W), uint8, and their labels (N,), int64."""

    images: Tensor
    labels: Tensor


class SmallImages(OpenTask):
    """A data set in memory. Validation is 5,000 of the training images (of a small set a tenth), always the same.

    Images are padded by 4 pixels on every side. In training a crop of the input's size is taken anywhere in that, and
    every second one mirrored; otherwise the crop is the middle one.
    """

    mean: ClassVar[tuple[float, ...]]
    deviation: ClassVar[tuple[float, ...]]

    @abstractmethod
    def read(self, training: bool) -> Labelled:
        """Read the training or the test images. Raises DataMissing and InvalidData."""

    def check_ready(self, model: str) -> None:
        """See Task.check_ready; the test images are read too."""
        next(self.batches("test", 1, limit=1))
        super().check_ready(model)

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split; see Task.batches."""
        source, rows = (self._test, None) if split == "test" else (self._train, self._parts[split])
        rows = torch.arange(len(source.labels)) if rows is None else rows
        rows = rows[evenly(len(rows), limit)]
        words = np.random.PCG64([seed, epoch])
        if split == "train":
            rows = rows[shuffled(words, len(rows))]
        for some in rows.split(batch_size):
            padded = F.pad(source.images[some], (MARGIN,) * 4)
            yield self._normalised(self._cropped(padded, words if split == "train" else None)), source.labels[some]

    def group_sizes(self, split: Split) -> None:
        """Every image stands on its own."""

    @cached_property
    def _train(self) -> Labelled:
        return self._checked(self.read(training=True), "training")

    @cached_property
    def _test(self) -> Labelled:
        return self._checked(self.read(training=False), "test")

    @cached_property
    def _parts(self) -> dict[Split, Tensor]:
        validation, train = held_out(len(self._train.labels))
        return {"validation": validation, "train": train}

    def _checked(self, data: Labelled, which: str) -> Labelled:
        if len(data.images) != len(data.labels) or not len(data.labels):
            raise InvalidData(
                f"task {self.name!r}: {len(data.images)} {which} images and {len(data.labels)} labels: "
                "get the files again"
            )
        if not 0 <= int(data.labels.min()) <= int(data.labels.max()) < self.classes:
            raise InvalidData(
                f"task {self.name!r}: {which} labels from {int(data.labels.min())} to {int(data.labels.max())}, and "
                f"there are {self.classes} classes: get the files again"
            )
        return data

    def _cropped(self, padded: Tensor, words: np.random.PCG64 | None) -> Tensor:
        """(N, C, height, width) of the input, at random places where there are random words, else in the middle."""
        count, _, *sizes = padded.shape
        _, *wanted = self.input_size
        rooms = [size - kept for size, kept in zip(sizes, wanted, strict=True)]
        if words is None:
            return padded[:, :, rooms[0] // 2 :, rooms[1] // 2 :][:, :, : wanted[0], : wanted[1]]
        draws = torch.from_numpy(uniform(words, 3 * count)).reshape(3, count)
        rows, columns = (
            (draw * (room + 1)).long()[:, None] + torch.arange(kept)
            for draw, room, kept in zip(draws, rooms, wanted, strict=False)
        )
        columns = torch.where(draws[2, :, None] < 0.5, columns.flip(1), columns)
        images, channels = torch.arange(count)[:, None, None, None], torch.arange(padded.shape[1])[:, None, None]
        return padded[images, channels, rows[:, None, :, None], columns[:, None, None, :]]

    def _normalised(self, images: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (self.mean, self.deviation))
        return (images.float() / 255 - mean) / deviation
