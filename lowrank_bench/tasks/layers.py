"""Single layers of published networks, as networks of their own: the papers time them alone."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def alexnet_conv2() -> nn.Sequential:
    """AlexNet's second layer as published, two groups of 48 to 128 channels, 5x5: (N, 96, 27, 27) to (N, 256, 27, 27).

    For ``task = "speed:96x27x27"``.
    """
    return nn.Sequential(OrderedDict(conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2)))


def torchvision_alexnet_conv2() -> nn.Sequential:
    """The same of torchvision's AlexNet, without groups: (N, 64, 27, 27) to (N, 192, 27, 27).

    For ``task = "speed:64x27x27"``.
    """
    return nn.Sequential(OrderedDict(conv2=nn.Conv2d(64, 192, 5, padding=2)))
