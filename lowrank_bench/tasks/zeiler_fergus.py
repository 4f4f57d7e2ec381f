"""The first two layers of Zeiler and Fergus's network (ECCV 2014, figure 3), each alone: Denton et al. (2014) cut and
timed them.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv1() -> nn.Sequential:
    """7x7 with stride 2: (N, 3, 224, 224) to (N, 96, 110, 110). For ``task = "speed:3x224x224"``."""
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 96, 7, stride=2, padding=1)))


def conv2() -> nn.Sequential:
    """5x5 with stride 2: (N, 96, 55, 55) to (N, 256, 26, 26). For ``task = "speed:96x55x55"``."""
    return nn.Sequential(OrderedDict(conv2=nn.Conv2d(96, 256, 5, stride=2)))
