"""How a layer's stride, padding, dilation, groups and bias split over a chain: once, for every scheme.

Zero padding and every other padding mode commute with a 1x1 factor without bias, and act on each axis on its own; so
the stage that spans an axis takes the layer's stride, padding and dilation along it, and the others take none. The bias
goes into the last convolution: before a padded one it would break the borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape, Permute, Rebuilt
from lowrank_bench.compression.modules import ChannelIndex, Factored, RebuiltConv2d, RebuiltLinear
from lowrank_bench.errors import InvalidChain, UnsupportedLayer

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A convolution or linear layer but for its weights. A linear layer is a 1x1 convolution of one pixel."""

    kind: Literal["conv2d", "linear"]
    kernel: KernelShape  # of one group
    groups: int = 1
    stride: Pair = (1, 1)
    padding: Pair | Literal["same"] = (0, 0)
    dilation: Pair = (1, 1)
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"

    @classmethod
    def of(cls, layer: nn.Module) -> Geometry:
        """Read a layer. Raises UnsupportedLayer for anything but a plain nn.Conv2d or nn.Linear."""
        if reason := refusal(layer):
            raise UnsupportedLayer(f"{type(layer).__name__}: {reason}")
        if isinstance(layer, nn.Linear):
            return cls("linear", KernelShape(layer.out_features, layer.in_features, 1, 1))
        assert isinstance(layer, nn.Conv2d)  # refusal() lets nothing else through
        out, inputs, dh, dw = layer.weight.shape
        padding: Pair | Literal["same"]
        if isinstance(layer.padding, str):
            padding = "same" if layer.padding == "same" else (0, 0)
        else:
            padding = _pair(layer.padding)
        kernel = KernelShape(out // layer.groups, inputs, dh, dw)
        return cls(
            "conv2d", kernel, layer.groups, _pair(layer.stride), padding, _pair(layer.dilation), layer.padding_mode
        )

    def ungrouped(self) -> Geometry:
        """The same layer as one group of all channels: its kernel is block-diagonal, see ``block_diagonal``."""
        out, inputs, *taps = self.kernel
        return replace(self, kernel=KernelShape(out * self.groups, inputs * self.groups, *taps), groups=1)

    def conv(self, stage: Factor | Rebuilt, bias: bool, dtype: torch.dtype) -> nn.Conv2d:
        """A convolution without values (on the meta device) for a stage: the layer's attributes along the axes that it
        spans, none along the others.
        """
        axes, (out, inputs, *taps) = stage.axes, stage.shape
        spans = ("h" in axes, "w" in axes)
        stride, dilation = (_along(values, spans, 1) for values in (self.stride, self.dilation))
        padding = ("same" if any(spans) else 0) if self.padding == "same" else _along(self.padding, spans, 0)
        mode = "zeros" if padding in (0, (0, 0)) else self.padding_mode
        channels = inputs * stage.groups
        return nn.Conv2d(
            channels, out, _pair(taps), stride, padding, dilation, stage.groups, bias, mode, device="meta", dtype=dtype
        )

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Padding on the left, right, top and bottom, as ``F.pad`` takes it."""
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, (self.kernel.dh, self.kernel.dw), strict=True)]
            (top, left), (bottom, right) = [n // 2 for n in total], [n - n // 2 for n in total]
            return left, right, top, bottom
        vertical, horizontal = self.padding
        return horizontal, horizontal, vertical, vertical

    def output_size(self, size: Pair, axes: Axes) -> Pair:
        """Height and width behind a stage that spans ``axes`` and is fed maps of ``size``."""
        if self.padding == "same":
            return size
        spans = ("h" in axes, "w" in axes)
        taps = (self.kernel.dh, self.kernel.dw)
        sizes = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1 if spanned else n
            for n, p, d, k, s, spanned in zip(size, self.padding, self.dilation, taps, self.stride, spans, strict=True)
        ]
        return sizes[0], sizes[1]


def refusal(layer: nn.Module) -> str | None:
    """Why a layer cannot be factored at all, by any method; None where it can."""
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear if isinstance(layer, nn.Linear) else None
    if kind is None:
        return "only nn.Conv2d and nn.Linear layers are factored"
    if torch.nn.utils.parametrize.is_parametrized(layer):
        return "its weight is parametrized: remove the parametrizations first"
    if type(layer) is not kind:
        return f"a subclass of {kind.__name__}, which may compute something else"
    if {"forward", "_conv_forward"} & vars(layer).keys():
        return "its forward was replaced, so that it may compute something else"
    if not layer.weight.is_floating_point():
        return f"its weight is {layer.weight.dtype}, and kernels of real numbers are factored"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it carries forward hooks (such as weight norm), which a factored layer would lose: remove them first"
    if layer._backward_hooks or layer._backward_pre_hooks:
        return "it carries backward hooks, which a factored layer would lose: remove them first"
    return None


def build(chain: Chain, geometry: Geometry, bias: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Factored:
    """The modules of a chain, in a layer's place. Raises InvalidChain where the chain does not fit the layer.

    The weights stay on the chain's device, converted to ``dtype``; ``bias`` (T * groups,) goes into the last
    convolution, in that one's channel order.
    """
    chain.check(geometry.kernel, geometry.groups)
    if bias is not None:
        bias = before_gathers(chain, bias)
    modules = [
        _module(stage, geometry, bias if number == chain.last else None, dtype)
        for number, stage in enumerate(chain.stages)
    ]
    return Factored(modules, geometry.kernel, geometry.groups, chain)


def _module(
    stage: Factor | Permute | Rebuilt, geometry: Geometry, bias: Tensor | None, dtype: torch.dtype
) -> nn.Module:
    linear = geometry.kind == "linear"
    if isinstance(stage, Permute):
        return ChannelIndex(stage.index, stage.inputs, dim=-1 if linear else 1)
    if linear and stage.groups > 1:
        raise UnsupportedLayer("a linear layer cannot be factored into grouped stages")
    bias = None if bias is None else bias.detach().to(stage.tensors[0].device, dtype)
    if isinstance(stage, Rebuilt):
        stage = replace(stage, cores=tuple(core.to(dtype) for core in stage.cores))
        return (
            RebuiltLinear(stage, bias)
            if linear
            else RebuiltConv2d(stage, geometry.conv(stage, bias is not None, dtype), bias)
        )
    layer: nn.Linear | nn.Conv2d
    if linear:
        out, inputs = stage.shape[:2]
        layer, weight = nn.Linear(inputs, out, bias is not None, device="meta", dtype=dtype), stage.weight[:, :, 0, 0]
    else:
        layer, weight = geometry.conv(stage, bias is not None, dtype), stage.weight
    layer.weight = nn.Parameter(weight.detach().to(dtype, copy=True, memory_format=torch.contiguous_format))
    layer.bias = None if bias is None else nn.Parameter(bias.clone())
    return layer


def before_gathers(chain: Chain, values: Tensor) -> Tensor:
    """One value for each output channel, in the order of the channels of the last convolution: undoes the gathers that
    follow it. Raises InvalidChain where they repeat or drop a channel.
    """
    for stage in reversed(chain.stages[chain.last + 1 :]):
        assert isinstance(stage, Permute)
        if not stage.index.is_meta and sorted(stage.index.tolist()) != list(range(stage.inputs)):
            raise InvalidChain(
                "channels are repeated or dropped behind the last convolution, so the bias has no place in it"
            )
        values = torch.empty_like(values).index_copy(0, stage.index.to(values.device), values)
    return values


def _along(values: Pair, spans: tuple[bool, bool], neutral: int) -> Pair:
    return values[0] if spans[0] else neutral, values[1] if spans[1] else neutral


def _pair(values: Sequence[int]) -> Pair:
    height, width = values
    return height, width
