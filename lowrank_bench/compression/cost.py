"""Parameters, multiply-accumulates (MACs) and bytes: of a model, of a layer where it stands, and of a chain in its
place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

from lowrank_bench.compression.chain import Chain, Permute
from lowrank_bench.compression.geometry import Geometry, Pair, refusal
from lowrank_bench.compression.modules import RebuiltConv2d
from lowrank_bench.compression.passes import alias_of, run_on_zeros
from lowrank_bench.compression.watching import input_of
from lowrank_bench.trial import Scope

_CONVOLUTIONS = (_ConvNd, RebuiltConv2d)
_TENSORS = {"weight", "bias"}
_SIZES = {
    "in_channels",
    "out_channels",
    "in_features",
    "out_features",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
}


@dataclass(frozen=True)
class Cost:
    """Parameters, MACs of one image, and bytes of parameters and buffers.

    MACs are those of convolutions and matrix products, as PyTorch's own flop counter sees them (its count / 2): each
    factor at the resolution at which it runs. A kernel that is rebuilt in forward counts once per call, as it would in
    a batch of one.
    """

    params: int
    macs: int
    bytes: int


@dataclass
class Site:
    """A layer where it stands: its geometry, and the size (H, W) of the maps that reach it in each of its calls, as
    often as a network puts parts of one image, such as tiles, into a batch (linear: (rows, 1)).
    """

    geometry: Geometry
    has_bias: bool
    sizes: list[Pair] = field(default_factory=list)

    @property
    def dense_macs(self) -> int:
        """MACs of one image in the dense layer, over all its calls."""
        shape, groups = self.geometry.kernel, self.geometry.groups
        return sum(
            shape.T * groups * shape.S * shape.dh * shape.dw * _area(self.geometry.output_size(size, "hw"))
            for size in self.sizes
        )

    @property
    def dense_params(self) -> int:
        """Weights and bias of the dense layer."""
        shape, groups = self.geometry.kernel, self.geometry.groups
        return shape.T * groups * (shape.S * shape.dh * shape.dw + self.has_bias)

    def macs(self, chain: Chain) -> int:
        """MACs of one image in a chain in this place (rebuilding of kernels apart)."""
        total = 0
        for size in self.sizes:
            for stage in chain.stages:
                if isinstance(stage, Permute):
                    continue
                size = self.geometry.output_size(size, stage.axes)
                out, inputs, kh, kw = stage.shape
                total += out * inputs * kh * kw * _area(size)
        return total

    def params(self, chain: Chain) -> int:
        """Weights and bias of a chain in this place."""
        return chain.params + self.has_bias * self.geometry.kernel.T * self.geometry.groups


def count(model: nn.Module, input_size: tuple[int, ...], scope: Scope = "all") -> Cost:
    """Cost of a model for one image of ``input_size`` (C, H, W); with ``scope="convs"`` of its convolutions of every
    kind: transposed, 1-D, 3-D and subclasses as well. What torch may fuse into a call of its own, attention and
    recurrent layers, counts as its matrix products. The model is not touched. Raises InvalidInput where it does not
    take that size.
    """
    alias = alias_of(model)
    part = model if scope == "all" else nn.ModuleList(m for m in model.modules() if isinstance(m, _CONVOLUTIONS))
    params = sum(p.numel() for p in part.parameters())
    size = sum(t.numel() * t.element_size() for t in [*part.parameters(), *part.buffers()])
    with _unfused(), _Multiplications() as counted:
        run_on_zeros(alias, input_size)
    return Cost(params, (counted.flops if scope == "all" else counted.convolutions) // 2, size)


def trace(model: nn.Module, input_size: tuple[int, ...]) -> dict[str, Site]:
    """Every layer that could be factored, by its name, with the maps that reach it. Raises InvalidInput as ``count``
    does.

    A layer that is reached under several names stands under its first. One that is never called does not appear, nor
    does one of which other code of the network reads what a factored layer has not: its weight, its bias, its sizes.
    """
    alias = alias_of(model)
    sites: dict[str, Site] = {}
    called: dict[str, None] = {}
    read: set[str] = set()
    for name, layer in alias.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and refusal(layer) is None:
            sites[name] = Site(Geometry.of(layer), layer.bias is not None)
            layer.__class__ = _telling(type(layer), _recorder(name, sites[name], called), partial(read.add, name))
    run_on_zeros(alias, input_size)
    return {name: sites[name] for name in called if name not in read}


def _recorder(name: str, site: Site, called: dict[str, None]) -> Callable[[Tensor], None]:
    def record(x: Tensor) -> None:
        called[name] = None
        if site.geometry.kind == "conv2d":
            site.sizes += [(x.shape[-2], x.shape[-1])] * math.prod(x.shape[:-3])
        else:
            site.sizes.append((x.numel() // x.shape[-1], 1))

    return record


def _telling(
    kind: type[nn.Conv2d | nn.Linear], hear: Callable[[Tensor], None], read: Callable[[], None]
) -> type[nn.Conv2d | nn.Linear]:
    """A kind of layer that calls ``hear`` with what reaches it, and ``read`` whenever its tensors or sizes are read by
    any code but its own forward. No hook would do: where there is one, torch's transformer layers leave their fused
    forward, which reads weights.
    """

    class Telling(kind):  # type: ignore[misc, valid-type]
        computing = False

        def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
            hear(input_of(inputs, named))
            self.computing = True
            try:
                return super().forward(*inputs, **named)
            finally:
                self.computing = False

        def __getattr__(self, name: str) -> Any:  # asked for what is no plain attribute: parameters, for instance
            if name in _TENSORS and not self.computing:
                read()
            return super().__getattr__(name)

        def __getattribute__(self, name: str) -> Any:
            if name in _SIZES and not super().__getattribute__("computing"):
                read()
            return super().__getattribute__(name)

    return Telling


@contextmanager
def _unfused() -> Iterator[None]:
    """Transformer layers in their single steps within: torch's fused ones have no formula."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _recurrent_flops(x: Tensor, to_gates: Tensor, from_state: Tensor, *_: Any, **named: Any) -> int:
    """Of one layer in one direction, over (time, images, inputs) or (images, time, inputs)."""
    return 2 * x.shape[0] * x.shape[1] * (to_gates.numel() + from_state.numel())


def _attention_flops(queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **named: Any) -> int:
    """Of all heads, over (images, heads, positions, width of a head)."""
    flops: int = sdpa_flop(queries.shape, keys.shape, values.shape)
    return flops


_FUSED: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
"""What the flop counter of some PyTorch that is supported has no formula for, though it multiplies."""


class _Multiplications(TorchDispatchMode):
    """Twice the MACs of all that runs within, and of the convolutions, by the formulas of PyTorch's own flop counter.

    FlopCounterMode itself finds the same sum, but imports 800 modules to do so: 2 s in every child process.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.convolutions = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch would import its compiler, in order to switch it off

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _FUSED.get(func.overloadpacket) or flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        out = func(*args, **kwargs)
        flops = formula(*args, **kwargs, out_val=out)
        self.flops += flops
        if formula is flop_registry[torch.ops.aten.convolution]:  # one formula for all of torch's convolutions
            self.convolutions += flops
        return out


def _area(size: Pair) -> int:
    return size[0] * size[1]
