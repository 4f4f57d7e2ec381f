"""Finding layers in a model and swapping them, wherever they hang."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowrank_bench.errors import InvalidWeights, UnknownName, UnsupportedLayer


def named_layer(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """The convolution or linear layer of that name. Raises UnknownName, and UnsupportedLayer for another module and for
    a model that is itself the layer, in whose place nothing can be put.
    """
    layers = dict(model.named_modules())
    if name not in layers:
        raise UnknownName("layer", name, (n for n, m in layers.items() if isinstance(m, nn.Conv2d | nn.Linear)))
    layer = layers[name]
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise UnsupportedLayer(
            f"layer {name!r} is a {type(layer).__name__}: only nn.Conv2d and nn.Linear layers are factored"
        )
    if not name:
        raise UnsupportedLayer(
            f"the model is itself a {type(layer).__name__}: wrap it in nn.Sequential, so that something can take its "
            "place, or use lowrank_bench.factorize"
        )
    return layer


def kernel_of(layer: nn.Conv2d | nn.Linear, groups: int | None = None) -> Tensor:
    """The layer's weight as a kernel (T, S / groups, dh, dw); that of a linear layer is 1x1.

    With ``groups=1`` that of a grouped layer is one block-diagonal kernel (T, S, dh, dw).
    """
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return weight[:, :, None, None]
    return block_diagonal(weight, layer.groups) if groups == 1 else weight


def check_finite(weight: Tensor, place: str) -> None:
    """Raise InvalidWeights, naming ``place``, where a weight holds NaN or infinity."""
    if not torch.isfinite(weight).all():
        raise InvalidWeights(
            f"{place}: the kernel holds values that are not finite (NaN or infinity), so it cannot be factored: mend "
            "or retrain it first"
        )


def block_diagonal(kernel: Tensor, groups: int) -> Tensor:
    """A grouped convolution's kernel (T, S / groups, dh, dw) as that of an ungrouped one, (T, S, dh, dw)."""
    out, inputs, dh, dw = kernel.shape
    blocks = kernel.new_zeros(groups, out // groups, groups, inputs, dh, dw)
    for group, block in enumerate(kernel.chunk(groups)):
        blocks[group, :, group] = block
    return blocks.reshape(out, groups * inputs, dh, dw)


def tied_layers(model: nn.Module) -> dict[str, str]:
    """Modules that share a parameter with another module: name -> reason to leave them as they are.

    What is tied is stored and counted once, so that factors in one module's place would save nothing of it, and untie
    it from the other. A module that is reached under several names is one, and shares nothing.
    """
    holders: dict[int, list[tuple[str, str]]] = {}
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            holders.setdefault(id(parameter), []).append((name, kind))
    return {
        name: f"it shares its {kind} with {next(other for other, _ in held if other != name)!r}: untie them first"
        for held in holders.values()
        for name, kind in held
        if any(other != name for other, _ in held)
    }


def swap(model: nn.Module, name: str, replacement: nn.Module) -> None:
    """Put a module in a layer's place, under every name by which the layer is reached (shared layers stay shared)."""
    layer = model.get_submodule(name)
    for parent in list(model.modules()):
        for child_name, child in list(parent._modules.items()):
            if child is layer:
                setattr(parent, child_name, replacement)
    replacement.train(layer.training)
