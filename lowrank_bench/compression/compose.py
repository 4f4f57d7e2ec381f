"""From a chain back to the dense kernel that it stands for: every method's oracle, and the measure of its error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowrank_bench.compression.chain import Chain, Permute
from lowrank_bench.compression.geometry import refusal
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.surgery import kernel_of
from lowrank_bench.decomposition.matrix import relative_error
from lowrank_bench.errors import UnsupportedLayer


def compose(module: nn.Module) -> Tensor:
    """The dense kernel of a factored layer, or of one that could be: (T, S / groups, dh, dw), float64. Raises
    UnsupportedLayer for other modules, such as one that may compute something else than its weight says.

    A grouped layer that was factored as one group has the kernel (T, S, dh, dw), block-diagonal but for the error.
    """
    if isinstance(module, Factored):
        return compose_chain(module.chain(), module.groups)
    if isinstance(module, nn.Conv2d | nn.Linear) and refusal(module) is None:
        return kernel_of(module).to(torch.float64, copy=True)
    raise UnsupportedLayer(f"the kernel of a {type(module).__name__} is not known: {refusal(module)}")


def compose_chain(chain: Chain, groups: int = 1) -> Tensor:
    """The dense kernel of a chain, (T, S / groups, dh, dw), float64; ``groups``: of the layer that the chain replaces.

    The product is built from the input side: after each stage, ``kernel`` (channels, S, kh, kw) maps the layer's input
    to the channels so far; (channels, S / groups, kh, kw) where no stage mixes groups, which spares a depthwise layer
    the square of its channels.
    """
    first, stages = chain.stages[0], chain.stages
    apart = groups if all(not isinstance(stage, Permute) and stage.groups % groups == 0 for stage in stages) else 1
    if isinstance(first, Permute) or first.groups > 1:
        channels = first.inputs if isinstance(first, Permute) else first.shape[1] * first.groups
        unit = torch.eye(channels // apart, dtype=torch.float64, device=first.tensors[0].device)
        kernel = unit.repeat(apart, 1)[:, :, None, None]
    else:  # the product of an identity with it, which would take longer than all others
        kernel, stages = first.kernel().to(torch.float64, copy=True), stages[1:]
    for stage in stages:
        if isinstance(stage, Permute):
            kernel = kernel[stage.index]
            continue
        kernel = _apply(stage.kernel().double(), stage.groups, kernel)
    return _diagonal_blocks(kernel, groups // apart)


def chain_error(weight: Tensor, chain: Chain, groups: int = 1) -> float:
    """||W - W^|| / ||W|| (Frobenius) of a chain that stands for the kernel W (T, S / groups, dh, dw)."""
    return relative_error(compose_chain(chain, groups), weight.double())


def _apply(weight: Tensor, groups: int, kernel: Tensor) -> Tensor:
    """Kernel of a convolution behind another: each axis is spanned by one of the two only, so their taps combine
    without a convolution.
    """
    out, inputs, kh, kw = weight.shape
    _, source, h, w = kernel.shape
    grouped_weight = weight.reshape(groups, out // groups, inputs, kh * kw)
    grouped_kernel = kernel.reshape(groups, inputs, source, h * w)
    product = torch.einsum("goia,gisb->gosab", grouped_weight, grouped_kernel)
    product = product.reshape(out, source, kh, kw, h, w).permute(0, 1, 2, 4, 3, 5)
    return product.reshape(out, source, kh * h, kw * w)


def _diagonal_blocks(kernel: Tensor, groups: int) -> Tensor:
    """(T, S, dh, dw) of a block-diagonal kernel -> (T, S / groups, dh, dw)."""
    out, source, dh, dw = kernel.shape
    blocks = kernel.reshape(groups, out // groups, groups, source // groups, dh, dw)
    return torch.cat([blocks[g, :, g] for g in range(groups)])
