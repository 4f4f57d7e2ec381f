"""The dense network itself: the A/A control of every sweep."""

from __future__ import annotations

from torch import nn

from lowrank_bench.compression.cost import count
from lowrank_bench.compression.method import Job, Method
from lowrank_bench.compression.model import Compressed
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.plan import Plan


class Identity(Method):
    """Leaves every layer dense. Its speedup is the A/A noise of the timing, and its accuracy after the common
    fine-tuning is what every loss is counted from.
    """

    name, version = "identity", 1

    def compress(self, model: nn.Module, job: Job) -> Compressed:
        """A copy of the model; budget and ranks do not touch it."""
        cost = count(model, job.input_size)
        return Compressed(copy_of(model), Plan(method=self.name, version=self.version), cost, cost)
