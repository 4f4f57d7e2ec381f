"""The networks of the TT-conv paper: their shapes, and the compression that it publishes, counted on real modules."""

import pytest
import torch
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import Chain, KernelShape
from lowrank_bench.compression.geometry import Geometry, build
from lowrank_bench.compression.surgery import swap
from lowrank_bench.decomposition.tt_matrix import tt_matrix_shapes
from lowrank_bench.methods.tt_conv import rebuilt_train
from lowrank_bench.tasks.garipov import AllConv, ConvFC

SIZE = (3, 32, 32)
COMPRESSED_CONVS = ("conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2")  # "conv1_1 is never compressed"


def tensor_trains(model, ranks):
    """The structure that the paper trains from scratch: channel modes 64 = 4.4.4 and 128 = 4.8.4."""
    options = {"mode": "rebuild", "start": "scratch", "scratch_recipe": "none"}
    ranks = dict(zip(COMPRESSED_CONVS, ranks, strict=True))
    return lrb.compress(model, "tt_conv", ranks=ranks, options=options, input_size=SIZE)


@pytest.mark.parametrize("network", [AllConv, ConvFC])
@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 7)])
def test_images_become_logits(network, channels, classes):
    assert network(channels, classes)(torch.randn(2, channels, 32, 32)).shape == (2, classes)


@pytest.mark.parametrize(("network", "maps"), [(AllConv, [32, 32, 16, 16, 6, 4]), (ConvFC, [32, 32, 16, 16, 8, 8])])
def test_maps_are_those_of_the_paper(network, maps):
    model, sizes = network(), []
    for module in model:
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _conv, _inputs, output: sizes.append(output.shape[-1]))
    model(torch.randn(2, *SIZE))
    assert sizes == maps


def test_every_layer_but_the_classifier_has_a_batch_norm_and_none_a_bias():
    for model in (AllConv(), ConvFC()):
        modules = list(model)
        layers = [n for n, module in enumerate(modules) if isinstance(module, nn.Conv2d | nn.Linear)]
        assert all(modules[n].bias is None for n in layers)
        assert all(isinstance(modules[n + 1], nn.BatchNorm1d | nn.BatchNorm2d) for n in layers[:-1])


def test_the_published_all_conv_is_3_230_times_smaller():
    """Ranks (22, 20, 20), (27, 22, 22), (23, 23, 23) x 3; two batch norm values a channel, no biases."""
    model = AllConv()
    compressed = tensor_trains(model, [(22, 20, 20), (27, 22, 22), *[(23, 23, 23)] * 3])
    assert (compressed.dense_cost.params, compressed.cost.params) == (557_248, 172_518)
    assert lrb.count(model, SIZE).params / lrb.count(compressed.model, SIZE).params == pytest.approx(3.230, abs=5e-4)


def test_the_published_conv_fc_is_41_652_times_smaller():
    """TT-conv ranks 16, TT-fc ranks 40 (8.8.8.16 -> 4.6.8.8) and 30 (-> 4.4.4.8)."""
    model = ConvFC()
    network = tensor_trains(model, [(16, 16, 16)] * 5).model
    for name, modes, rank in (
        ("fc1", ((8, 8, 8, 16), (4, 6, 8, 8)), 40),
        ("fc2", ((4, 6, 8, 8), (4, 4, 4, 8)), 30),
    ):
        layer = getattr(model, name)
        cores = [torch.randn(shape) for shape in tt_matrix_shapes(*modes, (rank,) * 3)]
        train = rebuilt_train(cores, KernelShape(layer.out_features, layer.in_features, 1, 1))
        swap(network, name, build(Chain([train]), Geometry.of(layer)))
    dense, small = lrb.count(model, SIZE).params, lrb.count(network, SIZE).params
    assert (dense, small) == (13_934_528, 334_544)
    assert dense / small == pytest.approx(41.652, abs=5e-4)
