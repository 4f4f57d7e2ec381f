"""A network while it is watched: in eval mode, and what reaches its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode within; every module's own mode comes back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def input_of(inputs: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Tensor:
    """What reaches a layer of torch in a call, as a hook with ``with_kwargs=True`` is told: ``layer(x)`` or
    ``layer(input=x)``.
    """
    return inputs[0] if inputs else named["input"]
