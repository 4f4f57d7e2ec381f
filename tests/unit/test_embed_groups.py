"""A grouped convolution as one block-diagonal kernel: the option embed_groups of cp_nls."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.cost import trace
from lowrank_bench.compression.method import LayerMethod
from lowrank_bench.compression.surgery import named_layer

GROUPED: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride, padding": {"stride": (2, 1), "padding": (0, 2)},
    "three groups, dilated, no bias": {"groups": 3, "out_channels": 9, "dilation": (1, 2), "bias": False},
    "same, reflected": {"padding": "same", "padding_mode": "reflect"},
    "1x1": {"kernel_size": 1},
    "depthwise": {"groups": 6, "out_channels": 6},
}


def grouped(**attributes: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "in_channels": 6,
        "out_channels": 8,
        "kernel_size": (3, 5),
        "groups": 2,
        "dtype": torch.float64,
    }
    return nn.Conv2d(**shape | attributes)


def dense_kernel(conv: nn.Conv2d) -> Tensor:
    """The kernel of the convolution as a linear map of all channels to all, read off its response to unit impulses."""
    S, dh, dw = conv.in_channels, *conv.kernel_size
    impulses = torch.zeros(S, S, 2 * dh - 1, 2 * dw - 1, dtype=torch.float64)
    impulses[range(S), range(S), dh - 1, dw - 1] = 1
    return nn.functional.conv2d(impulses, conv.weight.detach(), groups=conv.groups).flip(2, 3).transpose(0, 1)


@pytest.mark.parametrize("attributes", GROUPED.values(), ids=GROUPED)
def test_full_rank_is_exact_against_the_block_diagonal_kernel(attributes: dict[str, Any]) -> None:
    conv = grouped(**attributes)
    factored = lrb.factorize(conv, "cp_nls", "full", embed_groups=True)
    x = torch.randn(2, conv.in_channels, 11, 13, dtype=torch.float64)
    torch.testing.assert_close(factored(x), conv(x))
    torch.testing.assert_close(lrb.compose(factored), dense_kernel(conv))


def test_below_full_rank_the_chain_computes_the_kernel_that_it_composes_to() -> None:
    conv = grouped(padding=(1, 2))
    factored = lrb.factorize(conv, "cp_nls", 7, embed_groups=True)
    kernel, x = lrb.compose(factored), torch.randn(2, 6, 9, 9, dtype=torch.float64)
    assert kernel.shape == (8, 6, 3, 5)
    torch.testing.assert_close(factored(x), nn.functional.conv2d(x, kernel, conv.bias, padding=(1, 2)))
    assert 0.1 < float((kernel - dense_kernel(conv)).norm() / dense_kernel(conv).norm()) < 1


def test_only_the_depthwise_stages_are_grouped() -> None:
    embedded, per_group = (lrb.factorize(grouped(), "cp_nls", 7, embed_groups=embed) for embed in (True, False))
    assert [stage.groups for stage in embedded] == [1, 7, 7, 1]
    assert [stage.groups for stage in per_group] == [2, 14, 14, 2]


def test_an_ungrouped_layer_is_factored_as_without_the_option() -> None:
    conv = grouped(groups=1)
    plain, embedded = (lrb.factorize(conv, "cp_nls", 5, embed_groups=embed) for embed in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), embedded.parameters(), strict=True))


@pytest.mark.parametrize(("rank", "ratio"), [(200, 4.24), (140, 6.06)])
def test_alexnets_conv2_has_the_papers_ratio_to_the_grouped_baseline(rank: int, ratio: float) -> None:
    conv2 = nn.Sequential(nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False))
    site = trace(conv2, (96, 27, 27))["0"]
    method = lrb.methods()["cp_nls"](embed_groups=True)
    assert isinstance(method, LayerMethod)
    target = method.target_geometry(site.geometry)
    chain = method.structure_layer(target.kernel, target.groups, (rank,))
    assert site.dense_macs == 27 * 27 * 256 * 48 * 25
    assert site.dense_macs / site.macs(chain) == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize("choice", [{"ranks": {"2": 6}}, {"budget": lrb.Budget(macs=1.5)}], ids=["ranks", "budget"])
def test_a_compressed_model_is_counted_saved_and_loaded(choice: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1, groups=2)).eval()
    compressed = lrb.compress(model, "cp_nls", options={"embed_groups": True}, input_size=(4, 9, 9), **choice)
    assert {name: layer.ungrouped for name, layer in compressed.plan.layers.items()} == {"2": True}
    layer, dense = compressed.plan.layers["2"], named_layer(copy.deepcopy(model).double(), "2")
    assert layer.dense_macs == 7 * 7 * 16 * 4 * 9
    assert compressed.cost == lrb.count(compressed.model, (4, 9, 9))
    assert compressed.dense_cost.macs - compressed.cost.macs == layer.dense_macs - layer.macs
    assert isinstance(dense, nn.Conv2d)
    difference = lrb.compose(compressed.model.get_submodule("2")) - dense_kernel(dense)
    assert layer.error == pytest.approx(float(difference.norm() / dense.weight.detach().norm()), rel=1e-5)

    compressed.save(tmp_path)
    loaded, x = lrb.load(tmp_path, model), torch.randn(2, 4, 9, 9)
    assert loaded.plan == compressed.plan
    assert torch.equal(loaded.model(x), compressed.model(x))
    assert lrb.compose(loaded.model.get_submodule("2")).shape == (16, 8, 3, 3)
