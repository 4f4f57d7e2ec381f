"""What a plug-in implements: Method, and LayerMethod for methods that factor one layer at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import ValidationError
from torch import nn

from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.grids import fillable_pair, grid, grid_of_pairs
from lowrank_bench.compression.job import Batches, Job
from lowrank_bench.compression.layerwise import compress_layers
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.options import LayerOptions, Options
from lowrank_bench.compression.reconstruct import VERSION as RECONSTRUCT_VERSION
from lowrank_bench.compression.sensitivity import VERSION as SENSITIVITY_VERSION
from lowrank_bench.errors import InvalidOptions, explain
from lowrank_bench.seeds import check_seed

__all__ = [
    "Batches",
    "Job",
    "LayerMethod",
    "LayerOptions",
    "Method",
    "Options",
    "fillable_pair",
    "grid",
    "grid_of_pairs",
]


class Method(ABC):
    """A compression method. Set ``name`` and ``version`` (raised by hand when results would change) and implement
    ``compress``.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Options: ClassVar[type[Options]] = Options

    def __init__(self, seed: int = 0, **options: Any) -> None:
        """Validate the options. Raises InvalidOptions naming the option, its value and what would be right, and
        InvalidInput for a seed that is none.
        """
        check_seed(seed)
        self.seed = int(seed)
        try:
            self.options = self.Options(**options)
        except ValidationError as error:
            raise InvalidOptions(explain(error, f"options of method {self.name!r}", self.Options)) from None

    @property
    def versions(self) -> dict[str, int]:
        """The declared version of each stage of its own that decides its results."""
        return {"method": self.version}

    @abstractmethod
    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """A compressed copy of the model; the model itself is not changed."""


class LayerMethod(LayerFactoring, Method):
    """A method that factors one kernel at a time. Implement ``candidates`` and ``factorize``; the harness does groups,
    geometry, budgets and surgery.
    """

    Options: ClassVar[type[Options]] = LayerOptions
    options: LayerOptions

    @property
    def versions(self) -> dict[str, int]:
        """Its own, and those of the measuring of sensitivities and of the fit in a metric where options want them."""
        measured = {"sensitivity": SENSITIVITY_VERSION} if self.options.allocation == "sensitivity" else {}
        fitted = {"reconstruct": RECONSTRUCT_VERSION} if self.options.metric != "frobenius" else {}
        return super().versions | measured | fitted

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """Choose ranks for every layer, factor each, swap it in."""
        return compress_layers(self, model, job)
