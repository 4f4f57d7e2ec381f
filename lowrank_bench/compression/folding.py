"""Fold a batch norm into the factored layer before it."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.compression.chain import Chain, Factor, Rebuilt, Stage
from lowrank_bench.compression.geometry import Geometry, before_gathers, build
from lowrank_bench.compression.modules import Factored
from lowrank_bench.errors import UnsupportedLayer


def fold_norm(layer: Factored, norm: _BatchNorm, geometry: Geometry) -> Factored:
    """The layer that computes what ``norm``, in eval mode, makes of the output of ``layer``, exactly: gamma (W x + b -
    mean) / sigma + beta is a convolution again.

    ``geometry``: of the dense layer that ``layer`` stands for. Raises UnsupportedLayer for a layer without a bias,
    which has no place for the shift, and for a norm without affine values or running statistics.
    """
    bias, mean, variance = layer.output_bias(), norm.running_mean, norm.running_var
    if bias is None:
        raise UnsupportedLayer("a factored layer without a bias cannot take the shift of a batch norm: give it one")
    if mean is None or variance is None or not norm.affine:
        raise UnsupportedLayer("only a batch norm with affine values and running statistics can be folded")
    scale = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
    shifted = (bias.double() - mean.double()) * scale + norm.bias.detach().double()
    return build(scale_outputs(layer.chain(), scale), geometry, shifted, bias.dtype)


def scale_outputs(chain: Chain, scale: Tensor) -> Chain:
    """The chain whose output channel t is ``scale[t]`` times the given one's, exactly.

    A Factor at the end takes the values into its weights. A Rebuilt stage ties its output channels, so they become one
    more core of its contraction; of blocks that are tied as well (``repeat``), a depthwise 1x1 stage behind it.
    """
    last = chain.last
    scale = before_gathers(chain, scale.double())
    stage = chain.stages[last]
    behind: list[Stage] = []
    if isinstance(stage, Factor):
        scaled: Stage = replace(stage, weight=stage.weight.double() * scale[:, None, None, None])
    else:
        assert isinstance(stage, Rebuilt)  # a gather is never the last convolution
        axes = _output_axes(stage)
        if axes is None:
            scaled, behind = stage, [Factor(scale[:, None, None, None], groups=scale.numel())]
        else:
            scaled = _with_core(stage, axes, scale)
    return Chain([*chain.stages[:last], scaled, *behind, *chain.stages[last + 1 :]], chain.notes)


def _output_axes(stage: Rebuilt) -> dict[str, int] | None:
    """The letters of the contraction that make up the output channels of a block, and their sizes; None where blocks
    are repeated, or where other axes are merged with them.
    """
    if stage.repeat > 1:
        return None
    terms, result = stage.equation.split("->")
    sizes = {
        letter: size
        for term, core in zip(terms.split(","), stage.cores, strict=True)
        for letter, size in zip(term, core.shape, strict=True)
    }
    axes: dict[str, int] = {}
    for letter in result[1:]:
        if math.prod(axes.values()) == stage.block_shape[0]:
            break
        axes[letter] = sizes[letter]
    return axes if math.prod(axes.values()) == stage.block_shape[0] else None


def _with_core(stage: Rebuilt, axes: dict[str, int], values: Tensor) -> Rebuilt:
    """The stage with one more core, (blocks, *axes)."""
    terms, result = stage.equation.split("->")
    cores = (*(core.double() for core in stage.cores), values.reshape(stage.blocks, *axes.values()))
    return replace(stage, cores=cores, equation=f"{terms},{result[0]}{''.join(axes)}->{result}")
