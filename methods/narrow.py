"""The same architecture with fewer channels, trained from scratch: the control beside every low-rank method."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from lowrank_bench.compression import method
from lowrank_bench.compression.cost import count
from lowrank_bench.compression.history import History
from lowrank_bench.compression.method import Job, Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.plan import Plan
from lowrank_bench.compression.widths import narrowed, share_for
from lowrank_bench.errors import InvalidRanks
from lowrank_bench.training.from_scratch import ScratchRecipe, recipe_from_scratch, scratch_version
from lowrank_bench.training.jobs import train_for


class NarrowOptions(method.Options):
    """``scratch_recipe``: what trains it; by default what trained the dense network. ``align``: channels in multiples
    of it, which vector units like.
    """

    scratch_recipe: ScratchRecipe = None
    align: int = Field(1, ge=1)


class Narrow(Method):
    """The same architecture with one share of the channels everywhere (the width multiplier of MobileNets, Howard et
    al. 2017, section 3.3), trained from random values.

    The control that a low-rank network has to beat: trained by the recipe that trained the dense network and then tuned
    like every other, it sees as many epochs as they did together. Takes budgets in MACs and parameters, and no ranks.
    """

    name, version = "narrow", 1
    Options: ClassVar[type[method.Options]] = NarrowOptions
    options: NarrowOptions

    @property
    def versions(self) -> dict[str, int]:
        """Its own, and that of the recipe that trains it where the options name it."""
        return super().versions | scratch_version(self.options.scratch_recipe)

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """The network whose width comes nearest to the budget, trained. Raises InvalidRanks, InvalidBudget,
        UnsupportedLayer and InvalidInput.
        """
        if job.budget is None:
            raise InvalidRanks(f"{self.name} has channels and no ranks: give a budget, e.g. Budget(macs=4)")
        recipe = None if job.speed_only else recipe_from_scratch(job, self.options.scratch_recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            share = share_for(model, job.input_size, job.budget, self.options.align)
            network, widths = narrowed(model, job.input_size, share, self.options.align)
        history = History() if recipe is None else train_for(job, network, recipe, seed=self.seed)
        options = self.options.model_dump(mode="json")
        plan = Plan(method=self.name, version=self.version, options=options, widths=widths)
        cost, dense_cost = count(network, job.input_size), count(model, job.input_size)
        return Compressed(network, plan, cost, dense_cost, history)
