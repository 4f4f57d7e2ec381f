"""How to train: everything about a training but the model, the data and the seed."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi
from typing import Literal

from pydantic import Field

from lowrank_bench.trial import Noun

WARM_UP = 0.15  # part of a one-cycle schedule in which the learning rate rises


class Recipe(Noun):
    """How to train. An epoch is ``images_per_epoch`` images whatever the size of the data set, so the cost is known; of
    batches smaller than ``batch_size``, such as the last of a pass, each is a step of its own.

    ``frozen_factors``: factored layers keep their values, bias included. ``layer_by_layer``: tuning goes between the
    factorings, see training.tuning; the epochs are shared out, so that it costs what any other recipe costs.
    ``distillation``: weight, from 0 to 1, of the loss against the dense model's softened outputs, at ``temperature``
    (Hinton et al. 2015, section 2); the rest is that against the labels. ``patience``: where there are validation
    images, the epoch that is best on them counts, and training ends after so many epochs that are not; 0: every epoch
    is run and the last one counts. ``side_by_side``: the dense layers run beside the factored ones, "vanishing" from
    their blend while tuning, or with "slices" matched by each on its own, without labels; not for ``layer_by_layer``.

    ``version`` is raised by hand when the loop changes what the same values give.
    """

    name: str
    version: int = 1
    epochs: int = Field(ge=0)
    images_per_epoch: int = Field(gt=0)
    batch_size: int = Field(default=256, gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["one-cycle", "cosine"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    gradient_norm: float = Field(default=1.0, gt=0)
    frozen_factors: bool = False
    layer_by_layer: bool = False
    distillation: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=4.0, gt=0)
    patience: int = Field(default=0, ge=0)
    side_by_side: Literal["vanishing", "slices"] | None = None

    @property
    def unlabelled(self) -> bool:
        """Whether labels play no part: the loss is what acts on the weights beside them."""
        return self.side_by_side == "slices"

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch, the last one possibly on fewer images."""
        return -(-self.images_per_epoch // self.batch_size)

    def shared(self, parts: int) -> list[Recipe]:
        """As many recipes, each with its own schedule and all the epochs, which share the steps of every epoch: in all
        they take exactly as many steps as this one.
        """
        bounds = [self.steps_per_epoch * part // parts for part in range(parts + 1)]
        return [self._of_steps(end - start) for start, end in pairwise(bounds)]

    def _of_steps(self, steps: int) -> Recipe:
        return self.model_copy(update={"images_per_epoch": steps * self.batch_size} if steps else {"epochs": 0})

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: half a cosine down to zero, for one-cycle after a linear warm-up."""
        done = (step + 0.5) / (self.epochs * self.steps_per_epoch)
        if self.schedule == "one-cycle":
            if done < WARM_UP:
                return self.learning_rate * done / WARM_UP
            done = (done - WARM_UP) / (1 - WARM_UP)
        return self.learning_rate * (1 + cos(pi * done)) / 2
