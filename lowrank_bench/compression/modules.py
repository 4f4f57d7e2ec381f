"""The modules that a factored layer runs as: plain convolutions or linear layers, a channel gather, and kernels rebuilt
in forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_bench.compression.chain import Axes, Chain, Factor, KernelShape, Permute, Rebuilt, Stage, rebuild


class ChannelIndex(nn.Module):
    """Gather channels: output channel i is input channel ``index[i]``, along ``dim`` (1 for feature maps, -1 behind
    linear layers).
    """

    index: Tensor

    def __init__(self, index: Tensor, inputs: int, dim: int = 1) -> None:
        """``index``: int64, (outputs,), values below ``inputs``."""
        super().__init__()
        self.inputs, self.dim = inputs, dim
        self.register_buffer("index", index.to(torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        """Channels in and out."""
        return f"{self.inputs} -> {self.index.numel()}"


class _FromCores(nn.Module):
    """Shared half of the layers whose kernel is rebuilt in forward: the cores, and the contraction."""

    def __init__(self, stage: Rebuilt, bias: Tensor | None) -> None:
        super().__init__()
        self.stage = replace(stage, cores=tuple(core.detach().to("meta") for core in stage.cores))
        self.cores = nn.ParameterList(core.detach().clone() for core in stage.cores)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def kernel(self) -> Tensor:
        """The kernel as the convolution takes it: (out, in / groups, kh, kw)."""
        return rebuild(list(self.cores), self.stage.equation, self.stage.block_shape, self.stage.repeat)

    def extra_repr(self) -> str:
        """The contraction and the kernel it gives."""
        return f"{self.stage.equation}, kernel={self.stage.shape}, groups={self.stage.groups}"


class RebuiltConv2d(_FromCores):
    """A convolution whose kernel is contracted from its cores at each forward (memory is saved, MACs are not)."""

    def __init__(self, stage: Rebuilt, conv: nn.Conv2d, bias: Tensor | None) -> None:
        """``conv`` lends its stride, padding, padding mode and dilation."""
        super().__init__(stage, bias)
        self.stride, self.padding, self.dilation = (
            cast(tuple[int, int], conv.stride),
            conv.padding,
            cast(tuple[int, int], conv.dilation),
        )
        self.mode, self.margins = conv.padding_mode, list(conv._reversed_padding_repeated_twice)

    def extra_repr(self) -> str:
        """The contraction, the kernel it gives, and how that is applied."""
        attributes = ("stride", "padding", "dilation", "mode")
        return f"{super().extra_repr()}, {', '.join(f'{name}={getattr(self, name)}' for name in attributes)}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        if self.mode == "zeros":
            return F.conv2d(
                x,
                self.kernel(),
                self.bias,
                self.stride,
                cast(tuple[int, int], self.padding),
                self.dilation,
                self.stage.groups,
            )
        return F.conv2d(
            F.pad(x, self.margins, mode=self.mode),
            self.kernel(),
            self.bias,
            self.stride,
            0,
            self.dilation,
            self.stage.groups,
        )


class RebuiltLinear(_FromCores):
    """A linear layer whose matrix is contracted from its cores at each forward."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.kernel()[:, :, 0, 0], self.bias)


class Factored(nn.Sequential):
    """A factored layer: its stages in order. Remembers the shape of the kernel it stands for, so that it can be
    composed back.
    """

    def __init__(self, stages: Sequence[nn.Module], shape: KernelShape, groups: int, chain: Chain) -> None:
        """``shape``: of one group's kernel; ``groups``: of the layer it stands for; ``chain``: gives the axes that its
        stages span.
        """
        super().__init__(*stages)
        self.shape, self.groups = shape, groups
        self.axes: tuple[Axes, ...] = tuple("" if isinstance(stage, Permute) else stage.axes for stage in chain.stages)

    def __getitem__(self, index: int | slice) -> nn.Module:  # type: ignore[override]  # of nn.Sequential, typed apart
        """One of its stages; of a slice, which stands for no layer, a plain ``nn.Sequential``."""
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def chain(self) -> Chain:
        """The chain that these modules hold now, for instance after fine-tuning (weights detached, not copied)."""
        return Chain([_stage(module, axes) for module, axes in zip(self, self.axes, strict=True)])

    def output_bias(self) -> Tensor | None:
        """The bias of the layer, (T * groups,), in the order of its output channels; None where it has none."""
        gathers: list[ChannelIndex] = []
        for module in reversed(list(self)):
            if not isinstance(module, ChannelIndex):
                break
            gathers.append(module)
        bias = cast("Tensor | None", module.bias)
        for gather in reversed(gathers):
            bias = None if bias is None else bias[gather.index]
        return None if bias is None else bias.detach()


def _stage(module: nn.Module, axes: Axes) -> Stage:
    if isinstance(module, ChannelIndex):
        return Permute(module.index, module.inputs)
    if isinstance(module, _FromCores):
        return replace(module.stage, cores=tuple(core.detach() for core in module.cores))
    if isinstance(module, nn.Linear):
        return Factor(module.weight.detach()[:, :, None, None], axes)
    conv = cast(nn.Conv2d, module)
    return Factor(conv.weight.detach(), axes, conv.groups)
