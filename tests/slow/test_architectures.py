"""Architectures of both zoos, as they are: exact at full rank, counted as PyTorch counts, budgets met or refused.

LOWRANK_BENCH_ZOO='timm:*' pytest tests/slow/test_architectures.py    # some of them
"""

from __future__ import annotations

import fnmatch
import os

import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

import lowrank_bench as lrb
from lowrank_bench.compression.cost import trace
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.compression.registry import method_class
from lowrank_bench.tasks.preparation import preparation_of
from lowrank_bench.tasks.zoo import build_zoo_model

pytestmark = pytest.mark.timeout(1800)

TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet1_0
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 swin_t vgg11_bn vgg16 vit_b_32 wide_resnet50_2
"""
TIMM = """
botnet26t_256 convnext_atto convnextv2_atto cspresnet50 cspdarknet53 dla34 dpn68 ecaresnet26t edgenext_xx_small
efficientformer_l1 efficientnet_lite0 ese_vovnet19b_dw fastvit_t8 fbnetc_100 gcresnext26ts ghostnet_100 ghostnetv2_100
hardcorenas_a hrnet_w18_small lambda_resnet26t lcnet_050 levit_conv_128s mixnet_s mobilenetv3_small_100
mobilenetv4_conv_small mobileone_s0 mobilevit_xxs nf_regnet_b0 nfnet_l0 poolformer_s12 regnetx_002 repvgg_a0
res2net50_26w_4s resnest14d resnet18 resnet26d resnetv2_50 rexnet_100 selecsls42b semnasnet_075 seresnet50 skresnet18
starnet_s1 tf_efficientnet_b0 tinynet_e visformer_tiny xception41
"""
ALL = [f"torchvision:{name}" for name in TORCHVISION.split()] + [f"timm:{name}" for name in TIMM.split()]
NAMES = [name for name in ALL if fnmatch.fnmatch(name, os.environ.get("LOWRANK_BENCH_ZOO", "*"))]
METHODS = ["channel_svd", "tucker"]
SMALL = (3, 64, 64)


def sized(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network, and the small size of image where it takes that, else its own."""
    model = build_zoo_model(name)
    try:
        lrb.count(model, SMALL)
    except lrb.InvalidInput:
        return model, preparation_of(name).input_size
    return model, SMALL


def outputs(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(images)
    return found


def counted(model: nn.Module, size: tuple[int, int, int]) -> float:
    dtype = next(model.parameters()).dtype
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention has no formula
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, *size, dtype=dtype))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_those_of_the_flop_counter_and_no_convolution_is_forgotten(name: str) -> None:
    model, size = sized(name)
    assert lrb.count(model, size).macs == counted(model, size)
    compressed = lrb.compress(model, "identity", input_size=size)
    assert outputs(compressed.model, torch.ones(1, *size)).equal(outputs(model, torch.ones(1, *size)))
    first = next(iter(trace(model, size)))
    told = lrb.compress(model, "channel_svd", ranks={first: 1}, input_size=size)
    layers = {name for name, module in model.named_modules() if isinstance(module, _ConvNd | nn.Linear)}
    assert layers == {*told.plan.layers, *told.skipped}
    assert lrb.count(told.model, size).macs == counted(told.model, size) == told.cost.macs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_at_full_rank_the_network_computes_what_it_did(name: str, method: str) -> None:
    model, size = sized(name)
    model = model.double()
    convs = [name for name, site in trace(model, size).items() if site.geometry.kind == "conv2d"]
    compressed = lrb.compress(model, method, ranks=dict.fromkeys(convs, "full"), input_size=size)
    assert set(compressed.plan.layers) == set(convs)
    torch.manual_seed(0)
    images = torch.randn(2, *size, dtype=torch.float64)
    want = outputs(model, images)
    assert (outputs(compressed.model, images) - want).abs().max() <= 1e-8 * want.abs().max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_met_or_refused_with_the_largest_that_can_be(name: str, method: str) -> None:
    model, size = sized(name)
    made = method_class(method)()
    assert isinstance(made, LayerMethod)
    try:
        compressed = made.compress(model, Job(size, lrb.Budget(macs=2), speed_only=True))
    except lrb.InvalidBudget as error:
        assert "largest" in str(error) or "reach" in str(error)
        return
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(2, rel=0.05)
    assert compressed.cost.macs == counted(compressed.model, size)
    assert outputs(compressed.model, torch.randn(2, *size)).shape == outputs(model, torch.randn(2, *size)).shape
