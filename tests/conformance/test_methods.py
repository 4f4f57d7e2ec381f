"""Every registered method, on every kind of convolution: exact at full rank, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.method import LayerMethod

LAYER_METHODS = {name: cls for name, cls in lrb.methods().items() if issubclass(cls, LayerMethod)}
OTHER_METHODS = sorted(set(lrb.methods()) - set(LAYER_METHODS))

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "unequal-strides": {"stride": (2, 1), "padding": (0, 2)},
    "dilation": {"dilation": 2, "padding": 2},
    "unequal-dilations": {"kernel_size": (3, 5), "dilation": (1, 2), "padding": (2, 1)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"in_channels": 6, "out_channels": 6, "groups": 6},
    "depth-multiplier": {"in_channels": 4, "out_channels": 8, "groups": 4},
    "same": {"padding": "same"},
    "same-even-kernel": {"kernel_size": (4, 3), "padding": "same"},
    "same-dilated-reflect": {"padding": "same", "dilation": 2, "padding_mode": "reflect"},
    "valid": {"padding": "valid"},
    "reflect": {"padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"padding": 2, "padding_mode": "replicate", "stride": (1, 2)},
    "circular": {"padding": (1, 2), "padding_mode": "circular"},
    "reflect-one-axis": {"kernel_size": (3, 1), "padding": (1, 0), "padding_mode": "reflect"},
    "no-bias": {"bias": False, "padding": 1},
    "1x1": {"kernel_size": 1},
    "1x1-stride": {"kernel_size": 1, "stride": 2},
    "1x1-padded": {"kernel_size": 1, "padding": 1},
    "5x5": {"kernel_size": 5, "padding": 2},
    "9x9": {"kernel_size": 9, "padding": 4},
    "row": {"kernel_size": (1, 7), "padding": (0, 3)},
    "column": {"kernel_size": (5, 1)},
    "rectangular": {"kernel_size": (2, 5), "stride": (1, 2)},
    "one-input-channel": {"in_channels": 1},
    "one-output-channel": {"out_channels": 1},
    "wide": {"in_channels": 2, "out_channels": 12},
    "narrow": {"in_channels": 12, "out_channels": 2},
    "everything": {
        "kernel_size": (3, 5),
        "stride": (2, 1),
        "padding": (2, 3),
        "dilation": (1, 2),
        "groups": 2,
        "padding_mode": "circular",
    },
}


def convolution(**attributes: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(**{"in_channels": 6, "out_channels": 8, "kernel_size": 3, "dtype": torch.float64} | attributes)


def assert_exact(method: str, conv: nn.Conv2d, tolerance: float = 1e-9) -> None:
    """At full rank the outputs agree, and the chain composes back to the kernel."""
    try:
        factored = lrb.factorize(conv, method, "full")
    except lrb.UnsupportedLayer as refusal:
        assert str(refusal).strip()
        return
    x = torch.randn(2, conv.in_channels, 17, 16, dtype=conv.weight.dtype)
    expected = conv(x)
    assert (factored(x) - expected).abs().max() <= tolerance * expected.abs().max()
    kernel = conv.weight.detach().double()
    assert (lrb.compose(factored) - kernel).abs().max() <= tolerance * kernel.abs().max()


@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_full_rank_is_exact_in_float64(method: str, attributes: dict[str, Any]) -> None:
    assert_exact(method, convolution(**attributes))


@pytest.mark.parametrize("attributes", [CONVOLUTIONS["plain"], CONVOLUTIONS["everything"]], ids=["plain", "everything"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_full_rank_is_exact_in_float32(method: str, attributes: dict[str, Any]) -> None:
    assert_exact(method, convolution(**attributes, dtype=torch.float32), tolerance=2e-5)


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    same = draw(st.booleans())
    return {
        "in_channels": groups * draw(st.integers(1, 4)),
        "out_channels": groups * draw(st.integers(1, 4)),
        "kernel_size": kernel,
        "stride": 1 if same else draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": "same" if same else draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
        "dilation": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": mode,
    }


@pytest.mark.parametrize("method", LAYER_METHODS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(attributes=geometries())
def test_full_rank_is_exact_on_drawn_geometries(method: str, attributes: dict[str, Any]) -> None:
    assert_exact(method, convolution(**attributes))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_structure_promises_what_factorize_delivers(method: str, groups: int) -> None:
    instance = LAYER_METHODS[method]()
    shape = KernelShape(8, 6, 3, 5)
    torch.manual_seed(0)
    weight = torch.randn(shape.T * groups, *shape[1:], dtype=torch.float64)
    candidates = list(instance.candidates(shape))
    for ranks in {candidates[0], candidates[len(candidates) // 2], candidates[-1]}:
        promised = instance.structure_layer(shape, groups, ranks)
        assert str(promised) == str(instance.factorize_layer(weight, groups, ranks))


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_error_falls_with_the_rank(method: str) -> None:
    conv = convolution(in_channels=8, out_channels=8, bias=False)
    candidates = list(LAYER_METHODS[method]().candidates(KernelShape(8, 8, 3, 3)))
    chosen = [candidates[0], candidates[len(candidates) // 2], candidates[-1]]
    errors = [float((lrb.compose(lrb.factorize(conv, method, ranks)) - conv.weight).norm()) for ranks in chosen]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] <= 1e-9 * float(conv.weight.norm())


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_the_layer_is_not_changed_and_the_copy_is_in_its_dtype(method: str) -> None:
    conv = convolution(dtype=torch.float32)
    before = conv.weight.detach().clone()
    factored = lrb.factorize(conv, method, "full")
    assert torch.equal(conv.weight, before)
    assert {p.dtype for p in factored.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_weights_that_are_not_finite_are_refused(method: str, value: float) -> None:
    conv = convolution()
    conv.weight.data[0, 0, 0, 0] = value
    with pytest.raises(lrb.InvalidWeights, match="not finite"):
        lrb.factorize(conv, method, "full")


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_an_all_zero_kernel_stays_zero(method: str) -> None:
    conv = convolution()
    nn.init.zeros_(conv.weight)
    candidates = list(LAYER_METHODS[method]().candidates(KernelShape(8, 6, 3, 3)))
    for ranks in (candidates[0], candidates[-1]):
        kernel = lrb.compose(lrb.factorize(conv, method, ranks))
        assert torch.equal(kernel, torch.zeros_like(kernel))


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_ranks_out_of_range_are_refused_with_the_range(method: str) -> None:
    for ranks in (0, -1, 10**6, (), (1.5,), (1,) * 9):
        with pytest.raises(lrb.InvalidRanks, match="wanted"):
            lrb.factorize(convolution(), method, ranks)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_linear_layers_are_exact_or_refused(method: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 8, dtype=torch.float64)
    try:
        factored = lrb.factorize(linear, method, "full")
    except lrb.UnsupportedLayer as refusal:
        assert "linear" in str(refusal)
        return
    for x in (torch.randn(3, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)):
        assert (factored(x) - linear(x)).abs().max() <= 1e-9


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_methods_that_do_not_work_layer_by_layer_say_so(method: str) -> None:
    with pytest.raises(lrb.UnsupportedLayer, match="layer by layer"):
        lrb.factorize(convolution(), method, 2)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_gradients_reach_every_factor(method: str) -> None:
    candidates = list(LAYER_METHODS[method]().candidates(KernelShape(8, 6, 3, 3)))
    factored = lrb.factorize(convolution(), method, candidates[len(candidates) // 2])
    factored(torch.randn(1, 6, 9, 9, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in factored.parameters())


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_saved_and_loaded_again_it_computes_the_same(method: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    compressed = lrb.compress(model, method, ranks="full", input_size=(4, 9, 9))
    compressed.save(tmp_path)
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(lrb.load(tmp_path, model).model(x), compressed.model(x))
