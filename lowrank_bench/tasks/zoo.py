"""Networks of torchvision and timm by name, ``torchvision:resnet18`` or ``timm:resnet18``; or a part of one, run alone:
``torchvision:vgg16/features``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lowrank_bench.errors import InvalidInput, UnknownName

SEED = 0


def check_zoo_model(name: str) -> None:
    """Raise UnknownName, with the nearest, unless the library has a network of that name; its part is not looked at."""
    _maker(name)


def build_zoo_model(name: str) -> nn.Module:
    """The network with random weights, the same ones at every call, in eval mode. Raises UnknownName, and InvalidInput
    for a part that it does not have.
    """
    make, part = _maker(name)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = make()
    try:
        return model.get_submodule(part).eval()
    except AttributeError:
        parts = ", ".join(dict(model.named_children()))
        raise InvalidInput(f"model {name!r} has no part {part!r}; its parts are {parts}") from None


def _maker(name: str) -> tuple[Callable[[], nn.Module], str]:
    zoo, separator, model = name.partition(":")
    if not separator or zoo not in _ZOOS:
        raise UnknownName("zoo", name, [f"{zoo}:NAME" for zoo in _ZOOS])
    model, _, part = model.partition("/")
    return _ZOOS[zoo](model), part


def _torchvision(name: str) -> Callable[[], nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("model of torchvision", name, known)
    builder = models.get_model_builder(name)
    # GoogLeNet's and Inception's own start takes a minute, and their auxiliary heads are for training only
    spare: dict[str, Any] = {"init_weights": False, "aux_logits": False}
    accepted = inspect.signature(builder).parameters
    old_nets = "aux_logits" in inspect.signature(_class_of(builder)).parameters if "kwargs" in accepted else False
    return lambda: models.get_model(name, weights=None, **(spare if old_nets else {}))


def _class_of(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    annotation = inspect.get_annotations(builder, eval_str=True)["return"]
    found: Callable[..., nn.Module] = annotation
    return found


def _timm(name: str) -> Callable[[], nn.Module]:
    import timm

    known = timm.list_models()
    if name not in known:
        raise UnknownName("model of timm", name, known)
    return lambda: timm.create_model(name, pretrained=False)


_ZOOS: dict[str, Callable[[str], Callable[[], nn.Module]]] = {"timm": _timm, "torchvision": _torchvision}
