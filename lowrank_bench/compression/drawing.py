"""Random values for a chain: where the training of a factored network from scratch starts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_bench.compression.chain import Chain, KernelShape, Permute, with_tensors
from lowrank_bench.compression.compose import compose_chain


def draw_chain(structure: Chain, shape: KernelShape, groups: int = 1) -> Chain:
    """A chain of that structure (its values are not read) with normal values in float64, for ``groups`` kernels of
    ``shape``.

    All its tensors have one norm, as those of a decomposition, and the composed kernel has the mean square of He et al.
    2015 (eq. 10), 2 / (S dh dw). An index without values becomes a random one. The draws come from torch's global
    generator.
    """
    drawn = Chain([_gather(s) if isinstance(s, Permute) else with_tensors(s, _unit) for s in structure.stages])
    kernel = compose_chain(drawn, groups)
    wanted = math.sqrt(kernel.numel() * 2 / shape.patch)
    tensors = sum(len(stage.tensors) for stage in drawn.stages if not isinstance(stage, Permute))
    factor = float((wanted / torch.linalg.vector_norm(kernel)) ** (1 / tensors))
    return Chain([with_tensors(stage, lambda tensor: factor * tensor) for stage in drawn.stages])


def _gather(stage: Permute) -> Permute:
    if not stage.index.is_meta:
        return stage
    rounds = -(-stage.index.numel() // stage.inputs)
    return Permute(
        torch.cat([torch.randperm(stage.inputs) for _ in range(rounds)])[: stage.index.numel()], stage.inputs
    )


def _unit(tensor: Tensor) -> Tensor:
    drawn = torch.randn(tensor.shape, dtype=torch.float64)
    unit: Tensor = drawn / torch.linalg.vector_norm(drawn)
    return unit
