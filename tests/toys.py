"""A network and data small enough to train in a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (4, 8, 8)


def toy_net(seed: int = 0, norm: bool = False) -> nn.Sequential:
    """Three convolutions, the second grouped; with ``norm`` a batch norm behind the first."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 12, 3, padding=1),
        *([nn.BatchNorm2d(12)] if norm else []),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 2),
    ).eval()


def watched_net() -> tuple[nn.Module, list[int]]:
    """The same network, and the number of images in each batch that it or a copy of it is trained on, as they come."""
    sizes: list[int] = []

    class Watched(nn.Sequential):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return super().forward(x)

    return Watched(*toy_net()).eval(), sizes


def toy_batches(index: int) -> list[tuple[Tensor, Tensor]]:
    """Two classes, told apart by the sign of the mean."""
    generator = torch.Generator().manual_seed(index)
    labels = torch.randint(2, (256,), generator=generator)
    images = torch.randn(256, *SIZE, generator=generator) + (labels - 0.5)[:, None, None, None]
    return list(zip(images.split(32), labels.split(32), strict=True))
