"""What images a network of the user's own takes: as its factory says, else as the library of the network does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from lowrank_bench.errors import InvalidInput
from lowrank_bench.tasks.own_model import find_factory, make_own_model

INTERPOLATIONS = ("bicubic", "bilinear", "box", "hamming", "lanczos", "nearest")
"""Of Pillow, as timm names them."""
Reader = tuple[Callable[[Any], Any], str]
"""How an attribute is read, None for what is wrong, and what is wanted."""


def own_input_size(name: str) -> tuple[int, int, int] | None:
    """What the factory says in its attribute ``input_size``, (channels, height, width), of whatever number of channels;
    None where it has none. Raises what ``find_factory`` raises, and InvalidInput for what is no size.
    """
    size: tuple[int, int, int] | None = _said(name, {"input_size": _SIZE}).get("input_size")
    return size


def own_images(name: str) -> dict[str, Any]:
    """How images are prepared for the network, under timm's names, as far as anyone says: in the factory's attributes
    ``input_size`` (channels, height, width), ``mean`` and ``std`` (a value for every channel, of pixels from 0 to 1),
    ``crop_pct`` (share of the resized picture's side that is kept, up to 1) and ``interpolation``; what it does not say
    in the ``pretrained_cfg`` of the network that it gives, where that is one of timm's.

    Raises what ``make_own_model`` raises, and InvalidInput for an attribute of another form.
    """
    declared = _declared(name)
    return declared if len(declared) == len(_READERS) else _of_library(name) | declared


def _declared(name: str) -> dict[str, Any]:
    found = _said(name, _READERS)
    channels = found.get("input_size", (3,))[0]
    for attribute in ("mean", "std"):
        if len(values := found.get(attribute, range(channels))) != channels:
            raise InvalidInput(
                f"model {name!r}: its {attribute} = {values!r} is for {len(values)} channels, and its images have "
                f"{channels}: give a value for every channel, and input_size where that is not 3"
            )
    return found


def _said(name: str, readers: Mapping[str, Reader]) -> dict[str, Any]:
    factory, found = find_factory(name), dict[str, Any]()
    for attribute, (read, wanted) in readers.items():
        value = getattr(factory, attribute, None)
        if value is None or callable(value) or isinstance(value, property):  # a class may have a method of that name
            continue
        if (known := read(value)) is None:
            raise InvalidInput(f"model {name!r}: its {attribute} = {value!r}: {wanted}")
        found[attribute] = known
    return found


def _of_library(name: str) -> dict[str, Any]:
    config = getattr(make_own_model(name), "pretrained_cfg", None)
    known = config if isinstance(config, Mapping) else {}
    return {key: known[key] for key in (*_READERS, "crop_mode") if known.get(key) is not None}


def _size(value: Any) -> tuple[int, ...] | None:
    numbers = [*value] if isinstance(value, Sequence) else []
    right = len(numbers) == 3 and all(type(number) is int and number > 0 for number in numbers)
    return tuple(numbers) if right else None


def _image_size(value: Any) -> tuple[int, ...] | None:
    size = _size(value)
    return size if size is not None and size[0] in (1, 3) else None


def _values(value: Any) -> tuple[float, ...] | None:
    numbers = [*value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    right = len(numbers) in (1, 3) and all(_is_number(number) for number in numbers)
    return tuple(map(float, numbers)) if right else None


def _deviations(value: Any) -> tuple[float, ...] | None:
    values = _values(value)
    return values if values is not None and min(values) > 0 else None


def _share(value: Any) -> float | None:
    return float(value) if _is_number(value) and 0 < value <= 1 else None


def _interpolation(value: Any) -> str | None:
    return value if value in INTERPOLATIONS else None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


_SIZE: Reader = (_size, "(channels, height, width) are wanted, such as (3, 64, 64)")
_READERS: dict[str, Reader] = {
    "input_size": (_image_size, "(channels, height, width) are wanted, with 1 or 3 channels, such as (3, 64, 64)"),
    "mean": (_values, "a number for every channel is wanted, such as (0.5, 0.5, 0.5)"),
    "std": (_deviations, "a number above 0 for every channel is wanted, such as (0.5, 0.5, 0.5)"),
    "crop_pct": (_share, "a number above 0 and up to 1 is wanted, such as 0.875"),
    "interpolation": (_interpolation, f"one of {', '.join(INTERPOLATIONS)} is wanted"),
}
