"""Costs equal the closed forms of the papers, and torch's own flop counter."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.cost import trace
from lowrank_bench.tasks.charnet import CharNet

CHARNET_MACS = {"conv1": 1_990_656, "conv2": 31_850_496, "conv3": 2_097_152, "conv4": 18_432}
# Tai et al. 2016, table of K for VGG-16; with them they report 2.75x fewer convolution weights.
TAI_VGG16_K = [5, 24, 48, 48, 64, 128, 160, 192, 192, 256, 320, 320, 320]


def vgg16_sites() -> dict[str, object]:
    with torch.device("meta"):
        model = torchvision.models.vgg16()
    return {name: site for name, site in trace(model, (3, 224, 224)).items() if name.startswith("features")}


def test_charnet_costs_what_the_paper_says() -> None:
    sites = trace(CharNet(), (1, 24, 24))
    assert {name: site.dense_macs for name, site in sites.items()} == CHARNET_MACS
    assert lrb.count(CharNet(), (1, 24, 24)).macs == sum(CHARNET_MACS.values())


def test_vgg16_costs_what_is_published() -> None:
    sites = vgg16_sites()
    assert sum(site.dense_macs for site in sites.values()) == 15_346_630_656
    assert sum(site.dense_params - site.geometry.kernel.T for site in sites.values()) == 14_710_464


def test_separable_vgg16_with_the_ranks_of_tai_costs_what_they_report() -> None:
    method = lrb.methods()["jaderberg"]()
    sites = vgg16_sites()
    chains = [
        method.structure_layer(site.geometry.kernel, 1, (k,))
        for site, k in zip(sites.values(), TAI_VGG16_K, strict=True)
    ]
    assert sum(chain.params for chain in chains) == 5_358_573
    assert sum(site.macs(chain) for site, chain in zip(sites.values(), chains, strict=True)) == 4_944_393_216


def test_cp_of_charnet_at_rank_64_costs_what_the_paper_says() -> None:
    method, sites = lrb.methods()["cp_nls"](), trace(CharNet(), (1, 24, 24))
    chains = {name: method.structure_layer(sites[name].geometry.kernel, 1, (64,)) for name in ("conv2", "conv3")}
    costs = {name: (sites[name].macs(chain), chain.params) for name, chain in chains.items()}
    assert costs == {"conv2": (1_421_312, 12_416), "conv3": (299_520, 37_888)}


# Input channels, output channels, taps, padding, groups and the size that reaches it; and Tai et al. 2016's K.
CAFFENET = [
    (nn.Conv2d(3, 96, 11, stride=4, bias=False), 227, 8),
    (nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False), 27, 40),
    (nn.Conv2d(256, 384, 3, padding=1, bias=False), 13, 60),
    (nn.Conv2d(384, 384, 3, padding=1, groups=2, bias=False), 13, 100),
    (nn.Conv2d(384, 256, 3, padding=1, groups=2, bias=False), 13, 200),
]


def test_separable_caffenet_with_the_ranks_of_tai_costs_what_they_report() -> None:
    method, totals = lrb.methods()["jaderberg"](), [0, 0, 0, 0]
    for conv, size, k in CAFFENET:
        site = trace(conv, (conv.in_channels, size, size))[""]
        chain = method.structure_layer(site.geometry.kernel, conv.groups, (k // conv.groups,))
        counts = (site.dense_macs, site.dense_params, site.macs(chain), chain.params)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    assert totals == [665_784_864, 2_332_704, 125_897_640, 466_312]


CLOSED_FORMS = {
    # S, T, d, R and the areas of input, of output, and of the map between a vertical and a horizontal factor
    "channel_svd": lambda S, T, d, R, a_in, a_out, a_mid: R * S * d * d * a_out + R * T * a_out,
    "tucker": lambda S, T, d, R, a_in, a_out, a_mid: S * R * a_in + (R * R * d * d + R * T) * a_out,
    "jaderberg": lambda S, T, d, R, a_in, a_out, a_mid: R * S * d * a_mid + R * T * d * a_out,
    "cp_nls": lambda S, T, d, R, a_in, a_out, a_mid: R * (S * a_in + d * a_mid + (d + T) * a_out),
    "tt_conv": lambda S, T, d, R, a_in, a_out, a_mid: S * R * a_in + R * R * d * a_mid + (R * R * d + R * T) * a_out,
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_each_factor_counts_at_the_resolution_at_which_it_runs(method: str, stride: int) -> None:
    conv = nn.Conv2d(8, 12, 5, stride=stride, padding=2, bias=False)
    h, w = 16, 20
    ranks = 4
    factored = lrb.factorize(conv, method, ranks)
    out_h, out_w = (h + stride - 1) // stride, (w + stride - 1) // stride
    expected = CLOSED_FORMS[method](8, 12, 5, ranks, h * w, out_h * out_w, out_h * w)
    assert lrb.count(factored, (8, h, w)).macs == expected
    site = trace(conv, (8, h, w))[""]
    assert site.macs(factored.chain()) == expected


@pytest.mark.parametrize("method", ["channel_svd", "tucker", "jaderberg"])
def test_the_plan_adds_up_to_what_torch_counts(method: str) -> None:
    model = torchvision.models.squeezenet1_1(num_classes=10)
    compressed = lrb.compress(model, method, lrb.Budget(macs=3), input_size=(3, 64, 64))
    layers = compressed.plan.layers.values()
    for kind in ("macs", "params"):
        saved = sum(getattr(layer, f"dense_{kind}") - getattr(layer, kind) for layer in layers)
        assert getattr(compressed.dense_cost, kind) - getattr(compressed.cost, kind) == saved
    assert compressed.cost.params == sum(p.numel() for p in compressed.model.parameters())


def test_counting_leaves_the_model_alone_and_names_a_wrong_size() -> None:
    model = CharNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lrb.count(model, (1, 24, 24))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(lrb.InvalidInput, match=r"\(3, 24, 24\)"):
        lrb.count(model, (3, 24, 24))


def test_a_shared_layer_is_one_site_with_two_calls() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    sites = trace(nn.Sequential(conv, nn.ReLU(), conv), (4, 8, 8))
    assert [site.sizes for site in sites.values()] == [[(8, 8), (8, 8)]]


class Tiled(nn.Module):
    """Sees its image as four tiles in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        tiles = torch.cat([part for half in x.chunk(2, -1) for part in half.chunk(2, -2)])
        return self.second(self.first(tiles).relu())


def test_tiles_in_the_batch_count_each() -> None:
    model = Tiled().eval()
    sites = trace(model, (3, 16, 16))
    assert sum(site.dense_macs for site in sites.values()) == lrb.count(model, (3, 16, 16)).macs
    compressed = lrb.compress(model, "tucker", lrb.Budget(macs=3), input_size=(3, 16, 16))
    assert compressed.dense_cost.macs / compressed.cost.macs == pytest.approx(3, rel=0.05)


class Attending(nn.Module):
    """Attention as torch has it, which it fuses where nobody listens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64, 5)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).mT
        x = self.encoder(self.attention(x, x, x)[0])
        head: Tensor = self.head(x.mean(1))
        return head


def test_attention_counts_as_what_it_multiplies_and_what_it_reads_itself_stays_dense() -> None:
    model = Attending()
    positions, width = 8 * 8, 64
    projections, products = 4 * positions * width**2, 2 * positions**2 * width
    encoder = projections + products + 2 * positions * width * 128
    macs = positions * 27 * width + projections + products + encoder + width * 5
    assert lrb.count(model.eval(), (3, 8, 8)).macs == macs
    assert torch.backends.mha.get_fastpath_enabled()
    made = lrb.compress(model, "channel_svd", ranks={"conv": 8}, input_size=(3, 8, 8))
    assert made.model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert {"encoder.linear1", "encoder.linear2"} <= made.skipped.keys()
    with pytest.raises(lrb.LowRankBenchError, match=r"encoder\.linear1"):
        lrb.compress(model, "channel_svd", ranks={"encoder.linear1": 8}, input_size=(3, 8, 8))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_count_every_step_in_both_directions(kind: type[nn.RNNBase], gates: int) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.recurrent = kind(16, 32, num_layers=2, bidirectional=True, batch_first=True)  # type: ignore[call-arg]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.recurrent(self.conv(x).flatten(2).mT)[0]
            return out

    steps = 8 * 8
    layers = 2 * gates * 32 * ((16 + 32) + (2 * 32 + 32))
    assert lrb.count(Reading(), (3, 8, 8)).macs == steps * (27 * 16 + layers)


def test_kernel_shape_reads_as_the_papers_write_it() -> None:
    assert KernelShape(2, 3, 4, 5)._asdict() == {"T": 2, "S": 3, "dh": 4, "dw": 5}
