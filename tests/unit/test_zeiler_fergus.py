"""The two layers that Denton et al. time: the shapes of Zeiler and Fergus's figure 3."""

import torch

from lowrank_bench.tasks import zeiler_fergus


def test_maps_are_those_of_the_figure():
    assert zeiler_fergus.conv1()(torch.zeros(2, 3, 224, 224)).shape == (2, 96, 110, 110)
    assert zeiler_fergus.conv2()(torch.zeros(2, 96, 55, 55)).shape == (2, 256, 26, 26)
