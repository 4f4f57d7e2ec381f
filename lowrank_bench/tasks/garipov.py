"""The two networks of the TT-conv paper (Garipov et al. 2016), dense."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class AllConv(nn.Sequential):
    """64-64-pool-128-128-pool-128-128-average-linear, 3x3 kernels, for images of 32x32 (smaller ones are padded to it).

    A batch norm and a ReLU follow every convolution; there is no bias, as in the paper's counts. Pooling is by maximum
    over 3x3 with stride 2, the last two convolutions are valid, and what they leave, 4x4, is averaged. With 3 channels
    and 10 classes: 557,248 parameters. Images (N, channels, 32, 32) to logits (N, classes).
    """

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        """``channels``: of the image."""
        super().__init__(
            _body(channels, last_padding=0)
            | OrderedDict(average=nn.AvgPool2d(4), flatten=nn.Flatten(), fc=nn.Linear(128, classes, bias=False))
        )


class ConvFC(nn.Sequential):
    """The convolutions of AllConv, all padded, then linear layers 8192-1536-512-classes with batch norm and ReLU.

    With 3 channels and 10 classes: 13,934,528 parameters. Images (N, channels, 32, 32) to logits (N, classes).
    """

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        """``channels``: of the image."""
        super().__init__(
            _body(channels, last_padding=1)
            | OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * 8 * 8, 1536, bias=False),
                norm_fc1=nn.BatchNorm1d(1536),
                relu_fc1=nn.ReLU(),
                fc2=nn.Linear(1536, 512, bias=False),
                norm_fc2=nn.BatchNorm1d(512),
                relu_fc2=nn.ReLU(),
                fc3=nn.Linear(512, classes, bias=False),
            )
        )


def _body(channels: int, last_padding: int) -> OrderedDict[str, nn.Module]:
    """conv1_1 to conv3_2; ``last_padding``: of the last two."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, width in enumerate((64, 128, 128), start=1):
        for number in (1, 2):
            name, padding = f"{stage}_{number}", last_padding if stage == 3 else 1
            layers[f"conv{name}"] = nn.Conv2d(channels, width, 3, padding=padding, bias=False)
            layers[f"norm{name}"] = nn.BatchNorm2d(width)
            layers[f"relu{name}"] = nn.ReLU()
            channels = width
        if stage < 3:
            layers[f"pool{stage}"] = nn.MaxPool2d(3, 2, ceil_mode=True)  # 32 -> 16 -> 8, as with TensorFlow's SAME
    return layers
