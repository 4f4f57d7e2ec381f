"""Every registered method keeps every promise, and the checks see a promise that is broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.compression.chain import Chain, Factor, KernelShape
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.method import Job, LayerMethod
from lowrank_bench.conformance import CHECKS, checks
from lowrank_bench.conformance.convolutions import convolution

LAYER_METHODS = [name for name, cls in lrb.methods().items() if issubclass(cls, LayerMethod)]
OTHER_METHODS = sorted(set(lrb.methods()) - set(LAYER_METHODS))


def not_refused(conv: nn.Conv2d, method: str, what: str) -> None:
    """No method of ours is exact by refusing."""
    instance = lrb.methods()[method]()
    assert isinstance(instance, LayerMethod)
    assert instance.refuse(Geometry.of(conv)) is None, what


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_every_method_keeps_its_promises(method: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if check.startswith("exact-"):
        monkeypatch.setattr(checks, "_refused", not_refused)
    CHECKS[check](method)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_methods_that_do_not_work_layer_by_layer_say_so(method: str) -> None:
    with pytest.raises(lrb.UnsupportedLayer, match="layer by layer"):
        lrb.factorize(convolution(), method, 2)
    with pytest.raises(lrb.NonConforming, match="LayerMethod"):
        CHECKS["error-falls"](method)


class Whole(LayerMethod):
    """The kernel as it is, in one factor."""

    name, version = "whole", 1

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        return [(1,), (2,), (3,)]

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        return Chain([Factor(weight * (1 - 0.1 * (3 - ranks[0])), "hw")])


class InPlace(Whole):
    """Overwrites the copy that it is given."""

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        return Chain([Factor(weight.mul_(1 - 0.1 * (3 - ranks[0])), "hw")])


class OfOneTap(Whole):
    """For 1x1 convolutions only, of which it has two ranks."""

    def refuse(self, geometry: Any) -> str | None:
        return None if geometry.kernel[2:] == (1, 1) else "has more than one tap"

    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        return [(1,), (3,)]


class NearlyExact(Whole):
    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        return Chain([Factor(weight * (1 + 1e-6), "hw")])


class Transposed(Whole):
    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        return Chain([Factor(weight.flip(2), "hw")])


class Boastful(Whole):
    def structure(self, shape: KernelShape, ranks: tuple[int, ...]) -> Chain:
        return Chain([Factor(torch.empty(shape.T, 1, *shape[2:], device="meta"), "hw")])


class Moody(Whole):
    def refuse(self, geometry: Any) -> str | None:
        return " "


class Sudden(Whole):
    """Refuses depthwise kernels when it is too late: a budget over a whole network has been shared out by then."""

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        if weight.shape[:2] == (1, 1):
            raise lrb.UnsupportedLayer("depthwise kernels have no channels to share")
        return super().factorize(weight, ranks)


class Hermit(Whole):
    def refuse(self, geometry: Any) -> str | None:
        return "linear or not, no layer is good enough"


class Dead(Whole):
    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        T, S = weight.shape[:2]
        nothing = torch.zeros(T, 1, 1, 1, dtype=weight.dtype, device=weight.device)
        return Chain([Factor(weight.new_ones(1, S, *weight.shape[2:]), "hw"), Factor(nothing)])


class Careless(Whole):
    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        return Chain([Factor(weight / weight.norm() * weight.norm(), "hw")])


class Lenient(Whole):
    def check_ranks(self, shape: KernelShape, ranks: tuple[int, ...], place: str = "layer") -> None:
        return


class Curious(Whole):
    """Looks at values where there are shapes only."""

    def factorize(self, weight: Tensor, ranks: tuple[int, ...], statistics: Tensor | None = None) -> Chain:
        assert float(weight.norm()) >= 0
        return super().factorize(weight, ranks)


class Undecided(Whole):
    def candidates(self, shape: KernelShape) -> Sequence[tuple[int]]:
        return []


class Heedless(Whole):
    def compress(self, model: nn.Module, job: Job) -> lrb.Compressed:
        return lrb.methods()["identity"]().compress(model, job)


@pytest.mark.parametrize("method", [Whole, InPlace])
def test_a_method_that_keeps_its_promises_passes_as_a_class_too(method: type[LayerMethod]) -> None:
    for name, check in CHECKS.items():
        if name != "linear":
            check(method)


def test_what_a_method_overwrites_is_a_copy() -> None:
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    before = weight.clone()
    InPlace().factorize_layer(weight, 1, (1,))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "linear"])
def test_a_method_that_refuses_by_name_keeps_its_promises_on_what_it_takes(check: str) -> None:
    CHECKS[check](OfOneTap)


@pytest.mark.parametrize(
    ("broken", "check", "words"),
    [
        (NearlyExact, "exact-plain", "off by 1.0e-06"),
        (NearlyExact, "error-falls", "falls with the rank"),
        (Transposed, "exact-5x5", "kernel_size"),
        (Moody, "exact-drawn-geometries", "with a reason"),
        (Boastful, "structure", "structure promises"),
        (Moody, "exact-plain", "with a reason"),
        (Moody, "linear", "with a reason"),
        (Sudden, "exact-depthwise", "refuse says of"),
        (Hermit, "takes-something", "all are refused"),
        (Dead, "gradients", "a gradient reaches"),
        (Careless, "zero-kernel", "stays zero"),
        (Curious, "structure", r"overrides structure: .*meta"),
        (Undecided, "error-falls", "it lists none"),
        (Lenient, "ranks-out-of-range", "InvalidRanks"),
        (Heedless, "not-finite-nan", "raised for budget params/2, not nothing"),
    ],
)
def test_a_broken_promise_is_seen(broken: type[LayerMethod], check: str, words: str) -> None:
    with pytest.raises(lrb.NonConforming, match=words):
        CHECKS[check](broken)
