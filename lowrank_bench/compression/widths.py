"""The same architecture with fewer channels: every layer resized where it stands."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.compression.budget import TOLERANCE, spent
from lowrank_bench.compression.channel_axes import channel_axes, own_channels
from lowrank_bench.compression.cost import count
from lowrank_bench.compression.passes import alias_of, called, copy_of, run_on_zeros
from lowrank_bench.compression.plan import Width
from lowrank_bench.compression.watching import input_of
from lowrank_bench.errors import InvalidBudget, InvalidInput, UnsupportedLayer
from lowrank_bench.trial import Budget

Sized = nn.Conv2d | nn.Linear | _BatchNorm
MULTIPLES = (1, 2, 4, 8)
"""Times ``align``: what numbers of channels are rounded to, the first with which the model runs."""
HALVINGS = 12


def resize(layer: nn.Module, width: Width, name: str = "layer") -> None:
    """Give a layer other numbers of channels, and new values: kernels as He et al. 2015 draw them (eq. 10), no bias, a
    fresh norm. A depthwise convolution stays one. Other parameters of one value a channel, such as a layer scale, get
    their mean everywhere: what they were set to before training, where all were alike.

    Raises UnsupportedLayer, naming it, for other modules, and for groups that do not divide the channels.
    """
    if isinstance(layer, nn.Conv2d):
        groups = width.inputs if _is_depthwise(layer) else layer.groups
        if width.inputs % groups or width.outputs % groups:
            raise UnsupportedLayer(f"{name}: {groups} groups do not divide {width.inputs} to {width.outputs} channels")
        layer.in_channels, layer.out_channels, layer.groups = width.inputs, width.outputs, groups
        _draw(layer, (width.outputs, width.inputs // groups, *layer.kernel_size))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = width.inputs, width.outputs
        _draw(layer, (width.outputs, width.inputs))
    elif isinstance(layer, _BatchNorm):
        layer.num_features = width.outputs
        for kind in ("weight", "bias", "running_mean", "running_var"):
            if (old := getattr(layer, kind)) is not None:
                setattr(layer, kind, _blank(old, width.outputs))
        layer.reset_parameters()
    elif (own_channels(layer) or 1) > 1:
        _resize_each(layer, width.outputs)
    else:
        raise UnsupportedLayer(
            f"{name} is a {type(layer).__name__}: only nn.Conv2d, nn.Linear, norms and parameters of one value a "
            "channel are resized"
        )


def narrowed(
    model: nn.Module, input_size: tuple[int, int, int], share: float, align: int = 1
) -> tuple[nn.Module, dict[str, Width]]:
    """An untrained copy of a model with a share of its channels, and the widths of its layers.

    Every convolution and linear layer gets that share of its output channels, but for the last one, which gives the
    classes, and takes as many inputs as reach it. Numbers are multiples of ``align``, or of 2, 4 or 8 times it where
    the model does not run otherwise, as between grouped convolutions or before a maxout; so equal widths stay equal,
    and shortcuts fit.

    Raises UnsupportedLayer for a module whose parameters are neither those of such a layer or a norm nor one value for
    every channel of its input, InvalidInput where the model runs at no such width.
    """
    axes = channel_axes(model, input_size)
    for name, module in model.named_modules():
        if not isinstance(module, Sized) and (own_channels(module) is None or axes.get(name, 1) is None):
            raise UnsupportedLayer(
                f"{name or 'the model'} ({type(module).__name__}) holds parameters that are not one value for every "
                "channel of its input: only networks of nn.Conv2d, nn.Linear, norms and such parameters are made narrow"
            )
        if isinstance(module, Sized) and module._forward_pre_hooks:
            raise UnsupportedLayer(
                f"{name or 'the model'} carries forward pre-hooks, such as weight norm's, which know its width: remove "
                "them first"
            )
    layers = called(model, input_size, (nn.Conv2d, nn.Linear))
    if not layers:
        raise UnsupportedLayer("the model calls no nn.Conv2d and no nn.Linear: there is nothing to make narrow")
    dense_shape = _shape(run_on_zeros(alias_of(model), input_size))
    multiples = [align * times for times in MULTIPLES]
    for multiple in multiples:
        network = copy_of(model)
        widths: dict[str, Width] = {}
        handles = [
            layer.register_forward_pre_hook(
                _fitting(name, name == layers[-1], widths, share, multiple, axis), with_kwargs=True
            )
            for name, layer in network.named_modules()
            if (axis := 1 if isinstance(layer, Sized) else axes.get(name))
        ]
        try:
            found = _shape(run_on_zeros(network.eval(), input_size))
        except (InvalidInput, UnsupportedLayer):
            continue
        if found != dense_shape:
            raise UnsupportedLayer(
                f"the network with fewer channels gives {found} where the dense one gives {dense_shape}: its last "
                f"layer, {layers[-1]!r}, is not all that makes its outputs"
            )
        for handle in handles:
            handle.remove()
        return network, widths
    raise InvalidInput(
        f"the model does not run with a share {share:.3g} of its channels, in multiples of {multiples}: its forward "
        "pass wants fixed numbers of them"
    )


def share_for(model: nn.Module, size: tuple[int, int, int], budget: Budget, align: int = 1) -> float:
    """The share of the channels that meets a budget, by bisection. Raises InvalidBudget where none does, and what
    ``narrowed`` raises.
    """
    if budget.metric == "latency":
        raise InvalidBudget(f"budget {budget}: fewer channels meet budgets in MACs and parameters only")

    def cost(network: nn.Module) -> int:
        return spent(count(network, size, budget.scope), budget)

    dense, low, high = cost(model), 0.0, 1.0
    ratios: dict[float, float] = {}
    for _ in range(HALVINGS):
        share = (low + high) / 2
        ratios[share] = dense / cost(narrowed(model, size, share, align)[0])
        low, high = (share, high) if ratios[share] > budget.ratio else (low, share)
    best = min(ratios, key=lambda share: abs(ratios[share] / budget.ratio - 1))
    if abs(ratios[best] / budget.ratio - 1) > TOLERANCE:
        steps = f", in multiples of {align}," if align > 1 else ""
        raise InvalidBudget(
            f"budget {budget} cannot be met within 5 %: the nearest that fewer channels{steps} come is "
            f"{ratios[best]:.4g}"
        )
    return best


def _fitting(
    name: str, last: bool, widths: dict[str, Width], share: float, multiple: int, axis: int
) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
    """A hook that resizes a layer to what reaches it first; ``axis``: where its channels lie, unless it is linear."""

    def fit(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        if name in widths:
            return
        reaching = input_of(inputs, named).shape[-1 if isinstance(layer, nn.Linear) else axis]
        outputs = reaching
        if isinstance(layer, nn.Conv2d | nn.Linear):
            dense = layer.weight.shape[0]
            outputs = dense if last else max(multiple, round(share * dense / multiple) * multiple)
            if isinstance(layer, nn.Conv2d) and _is_depthwise(layer) and not last:
                outputs = dense // layer.groups * reaching
        widths[name] = Width(inputs=reaching, outputs=outputs)
        resize(layer, widths[name], f"layer {name!r}")

    return fit


def _shape(output: object) -> tuple[int, ...] | None:
    return tuple(output.shape) if isinstance(output, Tensor) else None


def _is_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels > 1


def _resize_each(module: nn.Module, channels: int) -> None:
    for kind, old in [*module.named_parameters(recurse=False)]:
        if old.numel() > 1:
            shape = [channels if size > 1 else 1 for size in old.shape]
            setattr(module, kind, nn.Parameter(old.detach().mean().expand(shape).clone()))
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (channels,)
        module.reset_parameters()
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = channels
        module.reset_parameters()


def _draw(layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...]) -> None:
    layer.weight = nn.Parameter(nn.init.kaiming_normal_(_blank(layer.weight, *shape), nonlinearity="relu"))
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.zeros(shape[0], dtype=layer.bias.dtype))


def _blank(like: Tensor, *shape: int) -> Tensor:
    blank = torch.empty(shape, dtype=like.dtype)
    return nn.Parameter(blank) if isinstance(like, nn.Parameter) else blank
