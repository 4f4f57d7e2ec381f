"""Copies of a model, and forward passes over an empty image to see what is called in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from lowrank_bench.errors import InvalidInput, LowRankBenchError


def copy_of(model: nn.Module, shared: Sequence[Tensor] = ()) -> nn.Module:
    """A deep copy but for the tensors that are ``shared``; weights that a hook computes anew at every call, such as
    weight norm's or those of pruning, are taken as they are now. Raises InvalidInput for a model that holds what
    cannot be copied, such as a list of activations, a lock or an open file.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    for module in model.modules():
        computed = (t for t in vars(module).values() if isinstance(t, Tensor) and not t.is_leaf)
        memo |= {id(tensor): tensor.detach().clone() for tensor in computed}
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:  # torch's, of a tensor with a history; copy's, of what it does not know
        raise InvalidInput(
            f"the model holds what cannot be copied ({next(iter(str(error).splitlines()), '')}): take out of its "
            "attributes what it keeps besides its weights, such as activations of an earlier pass"
        ) from None


def tensors_of(model: nn.Module) -> list[Tensor]:
    """The model's parameters and buffers, but for lazy ones, of which nothing is known yet."""
    return [value for value in (*model.parameters(), *model.buffers()) if not is_lazy(value)]


def check_module(model: object, what: str = "model") -> None:
    """Raise InvalidInput where a model is none, or its layers cannot be taken out."""
    if not isinstance(model, nn.Module):
        own = "; give its .model" if isinstance(getattr(model, "model", None), nn.Module) else ""
        raise InvalidInput(f"the {what} is of type {type(model).__name__}, and a torch.nn.Module is wanted{own}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInput(
            f"the {what} is of TorchScript, whose layers cannot be replaced: give the module that it was made from"
        )


def alias_of(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode that shares every weight with it. Raises InvalidInput where it has none yet, or
    is no module of Python.
    """
    check_module(model)
    weights = [*model.parameters()]
    if any(map(is_lazy, [*weights, *model.buffers()])):
        raise InvalidInput("the model holds lazy layers, whose weights have no shape yet: run it on an image first")
    return copy_of(model, weights).eval()


def run_on_zeros(alias: nn.Module, input_size: tuple[int, ...]) -> Any:
    """What a model gives for one empty image. Raises InvalidInput where that is none or the model does not take it."""
    if not (isinstance(input_size, Sequence) and all(isinstance(n, Integral) and n >= 1 for n in input_size)):
        raise InvalidInput(f"input_size must be (channels, height, width), positive integers, got {input_size!r}")
    weight = next((p for p in alias.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        with torch.no_grad():
            return alias(torch.zeros(1, *input_size, device=weight.device, dtype=weight.dtype))
    except (LowRankBenchError, MemoryError):
        raise
    except Exception as error:  # whatever a layer raises at a wrong shape, or the user's code
        reason = next(iter(str(error).splitlines()), "")
        raise InvalidInput(
            f"the model does not take an image of size {tuple(input_size)}, (C, H, W): {type(error).__name__}: {reason}"
        ) from error


def called(model: nn.Module, input_size: tuple[int, ...], kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Names of the modules of these kinds in the order in which they are called first. Raises InvalidInput as
    ``run_on_zeros`` does.
    """
    alias, names = alias_of(model), dict[str, None]()
    for name, layer in alias.named_modules():
        if isinstance(layer, kinds):
            layer.register_forward_pre_hook(lambda _layer, _inputs, name=name: names.setdefault(name))
    run_on_zeros(alias, input_size)
    return list(names)


def first_convolution(model: nn.Module, input_size: tuple[int, ...]) -> str | None:
    """Name of the convolution, of any kind, that is called first and so reads the image; None where there is none.
    Raises InvalidInput as ``run_on_zeros`` does.
    """
    return next(iter(called(model, input_size, (_ConvNd,))), None)
