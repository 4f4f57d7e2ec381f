"""Networks of torchvision and timm by name, ``torchvision:resnet18`` or ``timm:resnet18``; or a part of one, run alone:
``torchvision:vgg16/features``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lowrank_bench.errors import DataMissing, InvalidInput, UnknownName, is_out_of_memory

SEED = 0
HEADS = ("AuxLogits", "aux1", "aux2")
"""Auxiliary heads of GoogLeNet and Inception: for training only, where they make a tuple of the output."""


@dataclass(frozen=True)
class Wanted:
    """How a network is asked for: its number of ``classes`` and of image ``channels`` (None: as the library has it), or
    with the library's ``pretrained`` weights and their classes. ``filled``: it will get weights from a file, and so has
    what the library sets with its own ones.
    """

    classes: int | None = None
    channels: int | None = None
    pretrained: bool = False
    filled: bool = False


def in_zoo(name: str) -> bool:
    """Whether the name says timm or torchvision."""
    return name.partition(":")[0] in _ZOOS


def check_zoo_model(name: str) -> None:
    """Raise UnknownName, with the nearest, unless the library has a network of that name; its part is not looked at."""
    _maker(name, Wanted())


def build_zoo_model(name: str, wanted: Wanted = Wanted()) -> nn.Module:
    """The network in eval mode, with pretrained weights or random ones, which are the same at every call.

    Raises UnknownName, InvalidInput for a part that it does not have, and DataMissing, with the remedy, where the
    pretrained weights cannot be had on this machine.
    """
    make, part = _maker(name, wanted)
    if wanted.pretrained:
        model = _pretrained(name, make)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = make()
    try:
        return model.get_submodule(part).eval()
    except AttributeError:
        parts = ", ".join(dict(model.named_children()))
        raise InvalidInput(f"model {name!r} has no part {part!r}; its parts are {parts}") from None


def pretrained_weights(name: str) -> str:
    """Which pretrained weights the library has for the network now: their name, and where they come from. Empty where
    it has none.
    """
    zoo, _, model = name.partition(":")
    model = model.partition("/")[0]
    if zoo == "torchvision":
        from torchvision import models

        weights = models.get_model_weights(model).DEFAULT
        return f"{weights.name} {weights.url}"
    from timm import get_pretrained_cfg

    published = get_pretrained_cfg(model)
    return "" if published is None else f"{published.tag} {published.hf_hub_id} {published.url}"


def _pretrained(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        with _without_pickled_code():
            return make()
    except Exception as error:  # no network, no such file, no such weights: each library has its own classes for it
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataMissing(
            f"pretrained weights of {name!r} cannot be had on this machine ({reason}): where there is a network, save "
            f"them with safetensors.torch.save_file, and name the file as {name}@FILE or with --weights FILE; for its "
            "speed alone take task 'speed', which needs none"
        ) from None


@contextmanager
def _without_pickled_code() -> Iterator[None]:
    """torch.load then takes tensors only, whatever its caller asks for: torchvision's files are pickled."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _maker(name: str, wanted: Wanted) -> tuple[Callable[[], nn.Module], str]:
    zoo, separator, model = name.partition(":")
    if not separator or zoo not in _ZOOS:
        raise UnknownName("zoo", name, [f"{zoo}:NAME" for zoo in _ZOOS])
    model, _, part = model.partition("/")
    return _ZOOS[zoo](model, wanted), part


def _torchvision(name: str, wanted: Wanted) -> Callable[[], nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("model of torchvision", name, known)
    if wanted.pretrained:
        return lambda: _without_heads(models.get_model(name, weights="DEFAULT"))
    builder = models.get_model_builder(name)
    # GoogLeNet's and Inception's own start takes a minute, and published weights want their images scaled anew
    spare: dict[str, Any] = {"init_weights": False, "aux_logits": False, "transform_input": wanted.filled}
    accepted = inspect.signature(builder).parameters
    old_nets = "aux_logits" in inspect.signature(_class_of(builder)).parameters if "kwargs" in accepted else False
    options = (spare if old_nets else {}) | ({} if wanted.classes is None else {"num_classes": wanted.classes})
    return lambda: models.get_model(name, weights=None, **options)


def _without_heads(model: nn.Module) -> nn.Module:
    if getattr(model, "aux_logits", False):
        model.aux_logits = False  # type: ignore[assignment]
        for name in HEADS:
            if hasattr(model, name):
                setattr(model, name, None)
    return model


def _class_of(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    annotation = inspect.get_annotations(builder, eval_str=True)["return"]
    found: Callable[..., nn.Module] = annotation
    return found


def _timm(name: str, wanted: Wanted) -> Callable[[], nn.Module]:
    import timm

    known = timm.list_models()
    if name not in known and name not in timm.list_pretrained():  # the latter with their tags, resnet18.a1_in1k
        raise UnknownName("model of timm", name, known)
    sizes = {"num_classes": wanted.classes, "in_chans": wanted.channels}
    given: dict[str, Any] = {option: value for option, value in sizes.items() if value is not None}
    return lambda: timm.create_model(name, pretrained=wanted.pretrained, **given)


_ZOOS: dict[str, Callable[[str, Wanted], Callable[[], nn.Module]]] = {"timm": _timm, "torchvision": _torchvision}
