"""No data set: any network for its speed alone, which does not depend on the values of its weights."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from typing import NoReturn, Self

from torch import nn

from lowrank_bench.errors import DataMissing, InvalidInput, InvalidWeights
from lowrank_bench.tasks.open_task import OpenTask, is_code, split_model
from lowrank_bench.tasks.own_images import own_input_size
from lowrank_bench.tasks.task import Batch, Split


class Speed(OpenTask):
    """Any network at 224x224, or at C x H x W as speed:1x32x32, without data: its accuracy is not measured. Without
    C x H x W a network of the user's own is timed at the ``input_size`` that its factory has, where it has one.

    Its weights are random ones where it comes from a zoo. Its ranks follow the one-fraction rule and its factors are
    drawn, not fitted.
    """

    name, version = "speed", 1
    classes, input_size = 1000, (3, 224, 224)
    scored = False
    size_remedy = (
        "; name the size that it takes behind the task, as speed:3x384x384, or as FACTORY.input_size = (C, H, W)"
    )

    def __init__(self, argument: str = "") -> None:
        """``argument``: the size of an image, such as 3x224x224. Raises InvalidInput."""
        super().__init__()
        self.argument = argument
        if argument:
            parts = argument.split("x")
            if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
                raise InvalidInput(f"task 'speed:{argument}': channels, height, width are wanted, as speed:3x224x224")
            channels, height, width = map(int, parts)
            self.input_size = channels, height, width

    def for_model(self, model: str) -> Self:
        """The task at the size that the model is timed at. Raises what own_input_size raises."""
        if (size := self._declared(model)) is None:
            return self
        bound = copy.copy(self)
        bound.input_size = size
        return bound

    def brought(self, model: str) -> int:
        """As of every open task, and of the size that the factory names, where that counts."""
        found = super().brought(model)
        size = self._declared(model)
        return found if size is None else zlib.crc32(str(size).encode(), found)

    def load(self, model: str) -> nn.Module:
        """As of every open task; of a file that does not fit it says that it can be left out."""
        try:
            return super().load(model)
        except InvalidWeights as error:
            raise InvalidWeights(f"{error}; time does not depend on the values of weights: leave @FILE out") from None

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Raise DataMissing: there are none."""
        self._no_data()

    def group_sizes(self, split: Split) -> list[int] | None:
        """Raise DataMissing: there are no images."""
        self._no_data()

    def _declared(self, model: str) -> tuple[int, int, int] | None:
        name, _ = split_model(model)
        return own_input_size(name) if is_code(name) and not self.argument else None

    def _no_data(self) -> NoReturn:
        raise DataMissing("task 'speed' has no images: it is for timing alone, with recipe 'none'")
