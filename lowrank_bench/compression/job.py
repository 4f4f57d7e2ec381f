"""What a method is asked to do with a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from lowrank_bench.trial import Budget, NetworkRanks

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""Epoch -> (images, labels) batches."""


class Timer(Protocol):
    """Who times models for a latency budget, in its runtime and on as many threads as it says."""

    def seconds(self, model: nn.Module, shape: tuple[int, ...], budget: Budget) -> float:
        """Time of one call on an input of that shape, in seconds."""

    def ratio(self, dense: nn.Module, compressed: nn.Module, shape: tuple[int, ...], budget: Budget) -> float:
        """Time of the dense model over that of the compressed one, measured side by side."""


@dataclass(frozen=True)
class Hooks:
    """How a training within a method is watched and kept, see training.loop.train. ``validate`` tells the top-1 in
    percent after each epoch, and decides nothing; ``progress`` is told (steps done, steps in all, loss); ``resume`` is
    the file that keeps the state after every epoch.
    """

    validate: Callable[[nn.Module], float] | None = None
    progress: Callable[[int, int, float], None] | None = None
    resume: Path | None = None


@dataclass(frozen=True)
class Job:
    """What a method is asked to do with a model. Exactly one of ``budget`` and ``ranks`` is given (neither to the dense
    control). ``speed_only``: the model's weights mean nothing, so that every layer gets one fraction of its cost and
    the factors are drawn, not fitted. ``timer``: who times models, for a budget in latency. ``trained_by``: the recipe
    that trained the model, where it is known. ``hooks``: for methods that train.
    """

    input_size: tuple[int, int, int]
    budget: Budget | None = None
    ranks: NetworkRanks | None = None
    data: Batches | None = None
    recipe: str | None = None
    speed_only: bool = False
    timer: Timer | None = None
    trained_by: str | None = None
    hooks: Hooks = Hooks()
