"""CharNet, the character classifier of Jaderberg et al. 2014 that Lebedev et al. 2015 sped up by CP."""

from __future__ import annotations

from torch import Tensor, nn

from lowrank_bench.compression.maxout import Maxout


class CharNet(nn.Module):
    """Four valid convolutions with maxout, 24x24 grey to 36 logits.

    MACs by layer: 1,990,656 / 31,850,496 / 2,097,152 / 18,432, so conv2 and conv3 do 94 % of the work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 96, 9)  # 24 -> 16
        self.maxout1 = Maxout(2)
        self.conv2 = nn.Conv2d(48, 128, 9)  # 16 -> 8
        self.maxout2 = Maxout(2)
        self.conv3 = nn.Conv2d(64, 512, 8)  # 8 -> 1
        self.maxout3 = Maxout(4)
        self.conv4 = nn.Conv2d(128, 144, 1)
        self.maxout4 = Maxout(4)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            # Maxout has no dead half, so unit variance needs no gain: E max(a, b)^2 = 1 for two standard normals.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, 24, 24) to logits (N, 36)."""
        x = self.maxout1(self.conv1(x))
        x = self.maxout2(self.conv2(x))
        x = self.maxout3(self.conv3(x))
        logits: Tensor = self.maxout4(self.conv4(x))
        return logits.flatten(1)
