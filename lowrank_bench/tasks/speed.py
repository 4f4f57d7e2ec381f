"""No data set: any network for its speed alone, which does not depend on the values of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from lowrank_bench.errors import DataMissing, InvalidInput
from lowrank_bench.tasks.open_task import OpenTask
from lowrank_bench.tasks.task import Batch, Split


class Speed(OpenTask):
    """Any network at 224x224, or at C x H x W as speed:1x32x32, without data: its accuracy is not measured.

    Its weights are random ones where it comes from a zoo. Its ranks follow the one-fraction rule and its factors are
    drawn, not fitted.
    """

    name, version = "speed", 1
    classes, input_size = 1000, (3, 224, 224)
    scored = False

    def __init__(self, argument: str = "") -> None:
        """``argument``: the size of an image, such as 3x224x224. Raises InvalidInput."""
        super().__init__()
        if argument:
            parts = argument.split("x")
            if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
                raise InvalidInput(f"task 'speed:{argument}': channels, height, width are wanted, as speed:3x224x224")
            channels, height, width = map(int, parts)
            self.input_size = channels, height, width

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Raise DataMissing: there are none."""
        self._no_data()

    def group_sizes(self, split: Split) -> list[int] | None:
        """Raise DataMissing: there are no images."""
        self._no_data()

    def _no_data(self) -> NoReturn:
        raise DataMissing("task 'speed' has no images: it is for timing alone, with recipe 'none'")
