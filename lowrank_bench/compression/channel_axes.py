"""Modules whose own parameters hold one value a channel, such as layer norms and layer scales, and where in what
reaches them the channels lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lowrank_bench.compression.passes import alias_of, run_on_zeros


def own_channels(module: nn.Module) -> int | None:
    """The number of channels for each of which its own parameters hold a value, 1 where nothing depends on a number of
    channels; None where they hold anything else.
    """
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0] if len(module.normalized_shape) == 1 else None
    parameters = list(module.parameters(recurse=False))
    sizes = {parameter.numel() for parameter in parameters} - {1}
    if len(sizes) > 1 or any(parameter.numel() not in (1, *parameter.shape) for parameter in parameters):
        return None
    return next(iter(sizes), 1)


def channel_axes(model: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int | None]:
    """Every module with ``own_channels``, by its name: the axis of its input that has as many entries, the second or
    the last (the second where both have), or None where neither has. One that is never called does not appear. Raises
    InvalidInput as ``count`` does.
    """
    alias, axes = alias_of(model), dict[str, int | None]()
    for name, module in alias.named_modules():
        if (channels := own_channels(module)) is not None and channels > 1:
            module.register_forward_pre_hook(_finding(name, channels, axes))
    run_on_zeros(alias, input_size)
    return axes


def _finding(name: str, channels: int, axes: dict[str, int | None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def find(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        last_only = type(module) is nn.LayerNorm
        shape = inputs[0].shape if inputs and isinstance(inputs[0], Tensor) else ()
        fits = [axis for axis in ((-1,) if last_only else (1, -1)) if len(shape) > 1 and shape[axis] == channels]
        axes.setdefault(name, fits[0] if fits else None)

    return find
