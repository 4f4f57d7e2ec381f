"""No data set: networks of the zoos with random weights, for their speed alone, which does not depend on the values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from torch import nn

from lowrank_bench.errors import DataMissing
from lowrank_bench.tasks.task import Batch, Split, Task
from lowrank_bench.tasks.zoo import build_zoo_model, check_zoo_model


class Speed(Task):
    """Any network of torchvision or timm at 224x224, without data: its accuracy is not measured, and never guessed.

    Its ranks follow the one-fraction rule and its factors are drawn, not fitted.
    """

    name, version = "speed", 1
    classes, input_size = 1000, (3, 224, 224)
    models = ("torchvision:NAME", "timm:NAME")
    scored = False

    def check_model(self, model: str) -> None:
        """Raise UnknownName for what neither zoo has."""
        check_zoo_model(model)

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Raise DataMissing: there are none."""
        self._no_data()

    def group_sizes(self, split: Split) -> list[int] | None:
        """Raise DataMissing: there are no images."""
        self._no_data()

    def build(self, model: str) -> nn.Module:
        """The network with random weights. Raises UnknownName."""
        return build_zoo_model(model).train()

    def load(self, model: str) -> nn.Module:
        """The same in eval mode: nothing is trained here."""
        return build_zoo_model(model)

    def _no_data(self) -> NoReturn:
        raise DataMissing("task 'speed' has no images: it is for timing alone, with recipe 'none'")
