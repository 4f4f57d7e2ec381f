"""From a picture of any size to what a network takes: as its library prepares images, and varied for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST_SHARE = 0.08
ASPECT = 4 / 3
DEFAULT = (3, 224, 224)
GREY = {"mean": (0.449,), "std": (0.226,)}
"""ImageNet's, over its three channels."""


@dataclass(frozen=True)
class Preparation:
    """``fixed``: a picture in ``mode`` to (C, H, W), float32, normalised, for evaluation."""

    input_size: tuple[int, int, int]
    mean: Sequence[float]
    deviation: Sequence[float]
    fixed: Callable[[Image], Tensor]

    @property
    def mode(self) -> str:
        """Pillow's name for pictures of as many channels: grey or colour."""
        return "L" if self.input_size[0] == 1 else "RGB"

    def varied(self, image: Image, draws: Sequence[float]) -> Tensor:
        """A random part of the picture, of 8 to 100 % of its area and an aspect of 3/4 to 4/3, resized, every second
        time mirrored (Szegedy et al. 2015). ``draws``: five random numbers in [0, 1).
        """
        from PIL.Image import Resampling, Transpose
        from torchvision.transforms.functional import to_tensor

        share, aspect, x, y, mirror = draws
        _, height, width = self.input_size
        area = image.width * image.height * (SMALLEST_SHARE + (1 - SMALLEST_SHARE) * share)
        ratio = ASPECT ** (2 * aspect - 1)
        wide, high = min(image.width, math.sqrt(area * ratio)), min(image.height, math.sqrt(area / ratio))
        left, top = x * (image.width - wide), y * (image.height - high)
        part = image.resize((width, height), Resampling.BICUBIC, box=(left, top, left + wide, top + high))
        tensor: Tensor = to_tensor(part.transpose(Transpose.FLIP_LEFT_RIGHT) if mirror < 0.5 else part)
        mean, deviation = (torch.tensor(tuple(v))[:, None, None] for v in (self.mean, self.deviation))
        return (tensor - mean) / deviation


def preparation_of(model: str, said: Mapping[str, Any] | None = None) -> Preparation:
    """How the network's library prepares images for its published weights. What is no library's gets them as ``said``,
    under timm's names (see own_images), else resized, cropped and normalised as timm does by default for ImageNet: to
    3x224x224, 0.875 of the side, bicubic, with ImageNet's mean and deviation of colour or of grey.
    """
    library, _, name = model.partition(":")
    name = name.partition("/")[0]
    if library == "torchvision":
        from torchvision import models

        preset = models.get_model_weights(name).DEFAULT.transforms()
        (side,) = preset.crop_size
        return Preparation((3, side, side), preset.mean, preset.std, preset)
    from timm import get_pretrained_cfg
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    published = get_pretrained_cfg(name) if library == "timm" else None
    if published is not None:
        known = published.to_dict()  # type: ignore[no-untyped-call]
    else:
        known = {"input_size": DEFAULT} | dict(said or {})
        if known["input_size"][0] == 1:  # its library may speak of three
            known |= {key: value for key, value in GREY.items() if len(known.get(key, ())) != 1}
    settings = resolve_data_config({}, pretrained_cfg=known)  # type: ignore[no-untyped-call]
    fixed = create_transform(**settings, is_training=False)
    return Preparation(settings["input_size"], settings["mean"], settings["std"], fixed)
