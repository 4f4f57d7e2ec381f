"""Random values for a chain: where the training of a factored network from scratch starts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowrank_bench.compression.chain import Chain, KernelShape, Permute, with_tensors
from lowrank_bench.compression.compose import compose_chain
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.geometry import Geometry, build
from lowrank_bench.compression.modules import Factored


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
    factor = float((wanted / torch.linalg.vector_norm(kernel)) ** (1 / len(drawn.tensors)))
    return drawn.map(lambda tensor: factor * tensor)


def draw_factored(
    method: LayerFactoring, layer: nn.Conv2d | nn.Linear, geometry: Geometry, ranks: tuple[int, ...]
) -> tuple[Chain, Factored]:
    """The chain that ``method`` gives a layer at those ranks, drawn, and the module to take the layer's place.

    ``geometry``: what takes its place, see LayerFactoring.target_geometry. The bias is zero.
    """
    shape, groups = geometry.kernel, geometry.groups
    chain = draw_chain(method.structure_layer(shape, groups, ranks), shape, groups)
    bias = None if layer.bias is None else torch.zeros_like(layer.bias)
    return chain, build(chain, geometry, bias, layer.weight.dtype)


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
