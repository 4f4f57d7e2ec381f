"""Maxout (Goodfellow et al. 2013), and the form in which it costs next to nothing behind a convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

VECTOR = 16
"""Channels that runtimes compute together (AVX-512, float32): a half that does not fill them is padded to it."""


class Maxout(nn.Module):
    """Largest of each ``pieces`` consecutive channels: (N, pieces * C, H, W) to (N, C, H, W)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Take the maximum over each group of channels."""
        n, channels, height, width = x.shape
        return x.reshape(n, channels // self.pieces, self.pieces, height, width).amax(dim=2)

    def extra_repr(self) -> str:
        """Show the number of pieces."""
        return f"pieces={self.pieces}"


class PairedMaxout(nn.Module):
    """A convolution and the maxout of two behind it, as max(a, b) = a + relu(b - a): a and b - a are convolutions of
    half the channels each, and what is left runtimes fuse into them.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """``conv``: without groups, (N, S, H, W) to (N, 2 T, H', W')."""
        super().__init__()
        self.first, self.difference = _half(conv, [1.0, 0.0]), _half(conv, [-1.0, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        """(N, S, H, W) to (N, T, H', W')."""
        first: Tensor = self.first(x)
        return first + F.relu(self.difference(x))


def pair_maxouts(model: nn.Module) -> None:
    """Put a ``PairedMaxout`` in the place of each convolution that feeds a maxout of two and nothing else, if a half of
    its channels fills whole vectors; in place.

    For inference: the same function, but for rounding. As a reduction over channels, maxout makes runtimes leave their
    blocked layouts, which weighs the more, the less is left of the convolutions. A model without maxouts is not looked
    into.
    """
    for conv, maxout in [*_pairs(model)]:
        model.set_submodule(conv, PairedMaxout(model.get_submodule(conv)))  # type: ignore[arg-type]
        model.set_submodule(maxout, nn.Identity())


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Maxout) or super().is_leaf_module(module, name)


def _pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the convolutions and of the maxouts behind them."""
    modules = dict(model.named_modules())
    if not any(_of_two(module) for module in modules.values()):
        return
    nodes = [node for node in _Tracer().trace(model).nodes if node.op == "call_module"]
    calls = Counter(node.target for node in nodes)
    for node in nodes:
        source = node.args[0]
        if not (_of_two(modules[node.target]) and isinstance(source, fx.Node) and source.op == "call_module"):
            continue
        conv = modules[str(source.target)]
        alone = len(source.users) == calls[source.target] == calls[node.target] == 1
        if alone and type(conv) is nn.Conv2d and conv.groups == 1 and conv.out_channels % (2 * VECTOR) == 0:
            yield str(source.target), str(node.target)


def _of_two(module: nn.Module) -> bool:
    return isinstance(module, Maxout) and module.pieces == 2


def _half(conv: nn.Conv2d, mix: list[float]) -> nn.Conv2d:
    """The convolution whose channel t is ``mix[0]`` times channel 2 t of the given one and ``mix[1]`` times 2 t + 1."""

    def mixed(values: Tensor) -> nn.Parameter:
        pairs = values.detach().unflatten(0, (-1, 2)).transpose(0, 1)
        return nn.Parameter(mix[0] * pairs[0] + mix[1] * pairs[1], requires_grad=False)

    with torch.device("meta"):  # its own values are not drawn
        half = nn.Conv2d(
            conv.in_channels,
            conv.out_channels // 2,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
        )
    half.weight = mixed(conv.weight)
    half.bias = None if conv.bias is None else mixed(conv.bias)
    return half
