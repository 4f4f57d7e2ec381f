"""Metrics beside Frobenius': patches are what convolutions read, optima are optima, and full ranks stay exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.calibration import _draw, input_magnitudes, patch_moments, weight_importance
from lowrank_bench.compression.chain import Chain, Factor
from lowrank_bench.compression.compose import compose_chain
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.metric import ResponseMetric, Target, WeightedMetric
from lowrank_bench.compression.options import LayerOptions
from lowrank_bench.compression.reconstruct import reconstruct
from lowrank_bench.compression.surgery import kernel_of
from lowrank_bench.compression.targets import Targets

CONVS = {
    "plain": nn.Conv2d(4, 6, 3, bias=False),
    "strided, dilated, padded, rectangular": nn.Conv2d(
        4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 2), bias=False
    ),
    "same": nn.Conv2d(4, 6, (3, 4), padding="same", bias=False),
    "reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False),
}


class Net(nn.Module):
    """Two convolutions whose inputs are far from white, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x.cumsum(-1) / 3).relu()).relu()
        return self.head(x.mean((2, 3)))


def data(images: int = 96, size: int = 12) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(0, images, 32):
        yield torch.randn(32, 3, size, size, generator=generator), torch.randint(5, (32,), generator=generator)


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", CONVS)
def test_a_patch_times_the_kernel_is_an_output_of_the_convolution(case: str) -> None:
    conv = CONVS[case].double()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    patches = _draw(x, Geometry.of(conv), torch.Generator().manual_seed(0))
    rows = kernel_of(conv).reshape(conv.groups, -1, patches.shape[-1])
    responses = torch.einsum("gpn,gtn->pgt", patches, rows).flatten(1)
    outputs = conv(x).movedim(1, -1).flatten(0, 2)
    assert torch.cdist(responses, outputs, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-10


def test_moments_are_symmetric_positive_and_equal_the_cross_moments_of_an_unchanged_network() -> None:
    model = net()
    sites = {name: Geometry.of(model.get_submodule(name)) for name in ("first", "second", "head")}
    moments = patch_moments(model, model, sites, data())
    again = patch_moments(model, net(), sites, data())
    for name, found in moments.items():
        assert torch.allclose(found.inputs, found.inputs.mT)
        assert torch.linalg.eigvalsh(found.inputs).min() > 0
        assert torch.allclose(found.inputs, again[name].cross)


def test_what_lies_behind_the_layers_that_are_calibrated_runs_for_the_first_batch_only() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.behind, self.runs = nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(self.conv(x))
            self.runs += 1
            return self.behind(x)

    torch.manual_seed(0)
    model, batches = Twice(), list(data())
    assert len(batches) > 1
    sites = {"conv": Geometry.of(model.conv)}
    moments = patch_moments(model, model, sites, batches, centred=("conv",))["conv"]
    assert model.runs == 1
    patches = []
    for number, (images, _) in enumerate(batches):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            patches += [_draw(x, sites["conv"], generator)[0] for x in (images, model.conv(images))]
    assert moments.means is not None
    torch.testing.assert_close(moments.means[1][0], torch.cat(patches).double().mean(0))


def test_importance_of_a_linear_softmax_is_its_closed_form() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    model = nn.Sequential(layer)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    alpha = weight_importance(model, ["0"], [(x, y)])["0"]
    logits = model(x).detach()
    wrong = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    pull = logits.softmax(1) - nn.functional.one_hot(wrong, 3)
    expected = torch.einsum("nt,ns->nts", pull, x).double().square().sum(0).sqrt()
    assert torch.allclose(alpha, expected, rtol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


def _planted_target() -> Target:
    generator = torch.Generator().manual_seed(1)
    kernel = torch.randn(8, 6, 3, 3, dtype=torch.float64, generator=generator)
    roots = torch.randn(54, 54, dtype=torch.float64, generator=generator) * torch.logspace(0, -1.5, 54)[:, None]
    moments = (roots @ roots.T)[None]
    return Target(kernel, ResponseMetric(moments), moments)


def test_reconstruction_of_a_channel_svd_ends_at_its_closed_form() -> None:
    target = _planted_target()
    method = lrb.methods()["channel_svd"]()
    plain, best = (method.factorize(target.kernel, (4,), s) for s in (None, target.statistics[0]))  # type: ignore[attr-defined, index]
    errors = [float(target.metric(target.kernel - compose_chain(chain))) for chain in (plain, best)]
    found = float(target.metric(target.kernel - compose_chain(reconstruct(plain, target, 1))))
    assert errors[1] < 0.9 * errors[0]
    kept = reconstruct(best, target, 1)
    assert all(torch.equal(a, b) for a, b in zip(kept.tensors, best.tensors, strict=True))  # no round is spent on it
    assert errors[1] * (1 - 1e-9) <= found <= 1.01 * errors[1]


@pytest.mark.parametrize(
    ("method", "ranks"), [("cp_nls", (4,)), ("tucker", (4, 3)), ("jaderberg", (4,)), ("tt_conv", (3, 3, 3))]
)
def test_a_planted_kernel_is_found_below_what_hardly_any_patch_shows(method: str, ranks: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    chosen, n = lrb.methods()[method](), 90
    drawn = torch.randn(12, 10, 3, 3, dtype=torch.float64, generator=generator)
    planted = compose_chain(chosen.factorize(drawn, ranks))  # type: ignore[attr-defined]
    basis = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q
    moments = (basis * torch.logspace(0, -8, n, dtype=torch.float64) @ basis.T)[None]
    hidden = torch.randn(12, n // 3, dtype=torch.float64, generator=generator) @ basis[:, -(n // 3) :].T
    hidden = 0.7 * (hidden * planted.norm() / hidden.norm()).reshape(planted.shape)
    target = Target(planted + hidden, ResponseMetric(moments), moments)
    start = chosen.factorize(target.kernel, ranks)  # type: ignore[attr-defined]
    left = [target.metric(target.kernel - compose_chain(c)) for c in (start, reconstruct(start, target, 1))]
    least = target.metric(hidden)
    assert left[0] > 1000 * least
    assert left[1] < 1.01 * least


@pytest.mark.parametrize("metric", ["moments", "weights"])
def test_draws_of_a_metric_are_as_long_as_it_says(metric: str) -> None:
    target, generator = _planted_target(), torch.Generator().manual_seed(0)
    if metric == "weights":
        target = replace(target, metric=WeightedMetric(target.kernel.abs()))
    difference = torch.randn(target.kernel.shape, dtype=torch.float64, generator=generator)
    inner = [(target.metric.draw(target.kernel, generator) * difference).sum() for _ in range(4000)]
    assert float(torch.stack(inner).square().mean() / target.metric(difference)) == pytest.approx(1, abs=0.1)


def test_reconstruction_is_never_worse_than_its_start_and_says_what_is_left() -> None:
    target = _planted_target()
    start = lrb.methods()["jaderberg"]().factorize(target.kernel, (5,))  # type: ignore[attr-defined]
    chain = reconstruct(start, target, 1)
    left = target.metric(target.kernel - compose_chain(chain)) / target.metric(target.kernel)
    assert left < target.metric(target.kernel - compose_chain(start)) / target.metric(target.kernel)
    assert chain.notes is not None and chain.notes["data_error"] == pytest.approx(float(left) ** 0.5)


def test_weights_of_equal_importance_are_the_frobenius_norm() -> None:
    target = _planted_target()
    target = replace(target, metric=WeightedMetric(torch.full_like(target.kernel, 3.0)), statistics=None)
    start = lrb.methods()["jaderberg"]().factorize(target.kernel, (5,))  # type: ignore[attr-defined]
    moved = reconstruct(start, target, 1)
    assert torch.allclose(compose_chain(moved), compose_chain(start), atol=1e-6)


def test_a_zero_kernel_stays_zero() -> None:
    zero = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    chain = Chain([Factor(zero[:2], "hw"), Factor(torch.zeros(4, 2, 1, 1, dtype=torch.float64))])
    moved = reconstruct(chain, Target(zero, ResponseMetric(torch.eye(27, dtype=torch.float64)[None])), 1)
    assert not compose_chain(moved).any()


METRICS = [
    {"metric": "covariance"},
    {"metric": "covariance", "sequential": True},
    {"metric": "covariance", "centred": True},
    {"metric": "covariance", "centred": True, "sequential": True},
    {"metric": "mahalanobis"},
    {"metric": "activation"},
]


@pytest.mark.parametrize("options", METRICS, ids=str)
@pytest.mark.parametrize("method", ["channel_svd", "jaderberg", "tucker", "denton", "cp_nls", "tt_conv"])
def test_full_ranks_stay_exact_in_every_metric(method: str, options: dict[str, object]) -> None:
    model = net().double()
    batches = [(x.double(), y) for x, y in data(32)]
    compressed = lrb.compress(model, method, ranks="full", options=options, input_size=(3, 12, 12), data=batches)
    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    assert torch.allclose(compressed.model(x), model(x), rtol=1e-7, atol=1e-9)


def test_the_activation_metric_gives_channel_svd_the_factors_of_asvd() -> None:
    model, batches, rank = net().double(), [(x.double(), y) for x, y in data(64)], 3
    sites = {"second": Geometry.of(model.second)}
    means = input_magnitudes(model, sites, batches)["second"][0]
    options = {"metric": "activation"}
    made = lrb.compress(
        model, "channel_svd", ranks={"second": rank}, options=options, input_size=(3, 12, 12), data=batches
    )
    matrix, scale = model.second.weight.detach().flatten(1), means.sqrt()
    u, s, vh = torch.linalg.svd(matrix * scale, full_matrices=False)
    wanted = u[:, :rank] * s[:rank] @ vh[:rank] / scale
    found = lrb.compose(made.model.second).detach().flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_activation_metric_is_that_of_its_diagonal_matrix_and_holds_no_matrix(groups: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, groups=groups), nn.Flatten()).double().eval()
    batches = [(torch.randn(16, 6, 9, 9, dtype=torch.float64).exp(), torch.zeros(16, dtype=torch.int64))]
    sites = {"0": Geometry.of(model[0])}
    job = Job((6, 9, 9), ranks=2, data=lambda _epoch: batches)
    target = Targets(LayerOptions(metric="activation"), model, job, sites).of("0", model)
    assert target is not None and target.statistics is not None and target.statistics.shape == (groups, 54 // groups)
    matrices = torch.diag_embed(input_magnitudes(model, sites, batches)["0"])
    difference = torch.randn(model[0].weight.shape, dtype=torch.float64)
    torch.testing.assert_close(target.metric(difference), ResponseMetric(matrices)(difference))


def test_magnitudes_are_means_over_the_patches_and_never_zero() -> None:
    conv = nn.Conv2d(2, 3, 1, bias=False)
    x = torch.stack([torch.tensor([[-1.0, 3.0]]), torch.zeros(1, 2)])[None]
    found = input_magnitudes(nn.Sequential(conv), {"0": Geometry.of(conv)}, [(x, torch.zeros(1))] * 500)["0"]
    assert found.shape == (1, 2)
    assert float(found[0, 0]) == pytest.approx(2.0, rel=0.1) and 0 < float(found[0, 1]) < 1e-5


@pytest.mark.parametrize("method", ["channel_svd", "jaderberg", "tucker", "denton", "cp_nls"])
def test_responses_are_closer_in_the_covariance_metric_than_in_frobenius(method: str) -> None:
    model, batches = net(), list(data(512))
    x = torch.cat([x for x, _ in data(64)])

    def off(**options: object) -> float:
        ranks = {"second": 3 if method != "denton" else (2, 2)}
        made = lrb.compress(model, method, ranks=ranks, options=options, input_size=(3, 12, 12), data=batches)
        return float((made.model(x) - model(x)).detach().norm())

    assert off(metric="covariance") < off()


def _state(model: nn.Module) -> list[object]:
    return [[m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


@pytest.mark.parametrize("options", METRICS, ids=str)
def test_calibration_leaves_the_model_in_its_mode_also_where_it_fails(options: dict[str, object]) -> None:
    model = net().train()
    model.second.eval()
    model.head.weight.requires_grad_(False)
    before = _state(model)
    good, bad = list(data(32)), [(torch.zeros(4, 7, 12, 12), torch.zeros(4, dtype=torch.int64))]
    how = {"ranks": {"second": 3}, "options": options, "input_size": (3, 12, 12)}
    lrb.compress(model, "tucker", data=good, **how)
    assert _state(model) == before
    with pytest.raises(lrb.InvalidData, match=r"images \(4, 7, 12, 12\)"):
        lrb.compress(model, "tucker", data=bad, **how)
    assert _state(model) == before


@pytest.mark.parametrize("options", [*METRICS, {"allocation": "sensitivity"}], ids=str)
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(4, 3, 12, 11), r"holds images \(4, 3, 12, 11\), .* \(3, 12, 12\)"),
        (torch.zeros(4, 1, 12, 12), r"holds images \(4, 1, 12, 12\), .* \(3, 12, 12\)"),
        (torch.zeros(3, 12, 12), r"holds images \(3, 12, 12\), .* \(3, 12, 12\)"),
        (torch.full((4, 3, 12, 12), torch.nan), "holds images with values that are not finite"),
        (torch.full((4, 3, 12, 12), torch.inf), "holds images with values that are not finite"),
    ],
    ids=["size", "channels", "one image", "nan", "inf"],
)
def test_images_that_cannot_be_calibrated_on_are_named(
    images: torch.Tensor, words: str, options: dict[str, object]
) -> None:
    batches = [*data(32), (images, torch.zeros(len(images), dtype=torch.int64))]
    with pytest.raises(lrb.InvalidData, match=f"batch 1 of data {words}"):
        lrb.compress(net(), "tucker", lrb.Budget(macs=1.5), options=options, input_size=(3, 12, 12), data=batches)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_moments_of_a_network_in_half_precision_are_those_of_the_same_patches_in_single_precision(
    dtype: torch.dtype,
) -> None:
    batches = [((50 * images).to(dtype), labels) for images, labels in data()]  # squares leave the range of float16
    single, half = nn.Sequential(nn.Conv2d(3, 12, 3)), nn.Sequential(nn.Conv2d(3, 12, 3, dtype=dtype))
    sites = {"0": Geometry.of(single[0])}
    exact = patch_moments(single, single, sites, [(images.float(), labels) for images, labels in batches])["0"].inputs
    torch.testing.assert_close(patch_moments(half, half, sites, batches)["0"].inputs, exact)
    how = {"ranks": {"second": 3}, "options": {"metric": "covariance"}, "input_size": (3, 12, 12)}
    plan = lrb.compress(net().to(dtype), "tucker", data=batches, **how).plan
    assert 0 < plan.layers["second"].notes["data_error"] < 1


@pytest.mark.parametrize("options", METRICS, ids=str)
def test_a_layer_that_values_out_of_range_reach_is_named(options: dict[str, object]) -> None:
    model = net().half()
    torch.nn.init.constant_(model.first.weight, 3e4)
    batches = [(images.half(), labels) for images, labels in data(32)]
    how = {"ranks": {"second": 3}, "options": options, "input_size": (3, 12, 12)}
    with pytest.raises(lrb.InvalidData, match=r"layer 'second': .* are not finite .* float32"):
        lrb.compress(model, "tucker", data=batches, **how)


def test_a_fit_at_rounding_leaves_no_error_rather_than_a_complex_one() -> None:
    kernel = torch.eye(3, dtype=torch.float64)[:, :, None, None]

    class Rounded(WeightedMetric):
        def __call__(self, difference: Tensor) -> Tensor:
            return super().__call__(difference) - 1e-18

    target = Target(kernel, Rounded(torch.ones_like(kernel)))
    assert (reconstruct(Chain([Factor(kernel, "hw")]), target, 1).notes or {})["data_error"] == 0


@pytest.mark.parametrize("options", [*METRICS, {"allocation": "sensitivity"}], ids=str)
def test_calibration_that_sees_no_image_says_so(options: dict[str, object]) -> None:
    how = {"options": options, "input_size": (3, 12, 12)}
    read = data()
    list(read)
    for batches in ([], lambda _epoch: read):
        with pytest.raises(lrb.InvalidInput, match="holds no image"):
            lrb.compress(net(), "tucker", lrb.Budget(macs=1.5), data=batches, **how)


def test_a_group_that_nothing_but_zeros_reaches_is_factored_as_it_is() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(4, 8, 3, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.cat([x, 0 * x], 1)).mean((2, 3))

    images = [(torch.randn(32, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(32))]
    for options in ({}, {"sequential": True}, {"centred": True}):
        options = {"metric": "covariance"} | options
        found = lrb.compress(Dead(), "channel_svd", ranks="full", input_size=(2, 8, 8), options=options, data=images)
        assert found.plan.layers["conv"].error < 1e-5


class OnePatch(nn.Module):
    """A layer that a whole image is one patch of, with a bias or a batch norm behind it to take a shift, or neither."""

    def __init__(self, taker: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 10, 3, bias=taker == "bias", groups=2)
        self.norm = nn.BatchNorm2d(10) if taker == "norm" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).flatten(1)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("taker", ["bias", "norm", "nothing"])
def test_moments_about_the_mean_fit_what_varies_and_keep_the_mean_where_something_takes_it(
    taker: str, sequential: bool
) -> None:
    model = OnePatch(taker).double().eval()
    x = torch.randn(64, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    lost = {}
    for centred in (False, True):
        options = {"metric": "covariance", "sequential": sequential, "centred": centred}
        job = Job((4, 3, 3), ranks={"conv": 2}, data=lambda _epoch: [(x, x[:, 0, 0, 0])])
        made = lrb.methods()["channel_svd"](**options).compress(model, job)  # batch norms are not recalibrated here
        lost[centred] = (made.model(x) - model(x)).detach()
    if taker == "nothing":
        torch.testing.assert_close(lost[True], lost[False])
    else:
        assert lost[True].mean(0).abs().max() < 1e-6 < lost[False].mean(0).abs().max()
        assert lost[True].square().mean() < lost[False].square().mean()


def test_the_mean_is_that_of_the_dense_network_though_the_layers_before_are_compressed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 10, 3), nn.Flatten()).double().eval()
    x = torch.randn(64, 4, 3, 3, dtype=torch.float64) + 1
    off = {}
    for sequential in (False, True):
        options = {"metric": "covariance", "centred": True, "sequential": sequential}
        ranks, data = {"0": 1, "2": 2}, [(x, x[:, 0, 0, 0])]
        made = lrb.compress(model, "channel_svd", ranks=ranks, options=options, input_size=(4, 3, 3), data=data)
        off[sequential] = float((made.model(x) - model(x)).detach().mean(0).abs().max())
    assert off[True] < 1e-5 < off[False]


def test_calibration_without_data_says_what_to_give() -> None:
    with pytest.raises(lrb.InvalidInput, match="give data"):
        lrb.compress(net(), "tucker", ranks=2, options={"metric": "covariance"}, input_size=(3, 12, 12))
    with pytest.raises(lrb.InvalidInput, match="generator, which can be read once only: give a list"):
        lrb.compress(net(), "tucker", ranks=2, options={"metric": "covariance"}, input_size=(3, 12, 12), data=data())
    for name in ("sequential", "centred"):
        with pytest.raises(lrb.InvalidOptions, match=f"{name} belongs to"):
            lrb.compress(net(), "tucker", ranks=2, options={name: True}, input_size=(3, 12, 12), data=list(data()))


def test_a_metric_has_no_meaning_for_a_layer_alone() -> None:
    for method in ("tucker", "tt_conv"):
        with pytest.raises(lrb.UnsupportedLayer, match=r"'covariance' is calibrated on images .*compress with data"):
            lrb.factorize(nn.Conv2d(4, 6, 3), method, 2, metric="covariance")


@pytest.mark.parametrize("options", METRICS, ids=str)
def test_where_no_layer_is_cut_there_is_nothing_to_calibrate(options: dict[str, object]) -> None:
    model = net()
    with pytest.warns(UserWarning, match="tucker left every layer as it is"):
        same = lrb.compress(model, "tucker", ranks={}, options=options, input_size=(3, 12, 12), data=list(data()))
    assert not same.plan.layers
    images = next(data())[0]
    assert torch.equal(same.model(images), model(images))
