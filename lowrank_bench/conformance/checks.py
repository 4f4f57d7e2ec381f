"""The promises of a layer-wise method, one check each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from lowrank_bench.api import compress, factorize
from lowrank_bench.compression.chain import KernelShape
from lowrank_bench.compression.compose import compose
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.method import LayerMethod, Method
from lowrank_bench.compression.model import load
from lowrank_bench.compression.modules import Factored
from lowrank_bench.compression.registry import method_class
from lowrank_bench.conformance.convolutions import CONVOLUTIONS, convolution, drawn_attributes
from lowrank_bench.conformance.require import require, require_close, require_raises
from lowrank_bench.errors import InvalidRanks, InvalidWeights, NonConforming, UnsupportedLayer
from lowrank_bench.trial import Budget

AnyMethod = str | type[Method]

# In float64 nothing but rounding may be lost; in float32 the kernel itself is rounded once more.
EXACT, EXACT_FLOAT32 = 1e-9, 2e-5
DRAWN_GEOMETRIES = 25


def check_exact(method: AnyMethod, tolerance: float = EXACT, **attributes: Any) -> None:
    """At full rank a convolution's outputs agree and the chain composes back to its kernel, within ``tolerance`` of the
    largest value; or ``refuse`` gives a reason why the method does not take it. Raises NonConforming.
    """
    conv = convolution(**attributes)
    what = f"a convolution with {attributes}"
    if _refused(conv, method, what):
        return
    factored = _exact(conv, method, what)
    x = torch.randn(2, conv.in_channels, 17, 16, dtype=conv.weight.dtype)
    require_close(factored(x), conv(x), tolerance, f"the output of {what}")
    require_close(compose(factored), conv.weight.double(), tolerance, f"the kernel of {what}")


def check_drawn_geometries(method: AnyMethod) -> None:
    """Exact on convolutions that hypothesis draws; skipped where it is not installed. Raises NonConforming."""
    hypothesis = pytest.importorskip("hypothesis")
    settings = hypothesis.settings(max_examples=DRAWN_GEOMETRIES, deadline=None, derandomize=True, database=None)
    settings(hypothesis.given(drawn_attributes(hypothesis.strategies))(lambda drawn: check_exact(method, **drawn)))()


def check_structure(method: AnyMethod, groups: int) -> None:
    """``structure`` promises, without values, the chain that ``factorize`` delivers. Raises NonConforming."""
    instance, shape = _instance(method), _shape(_taken(method, kernel_size=(3, 5)))
    torch.manual_seed(0)
    weight = torch.randn(shape.T * groups, *shape[1:], dtype=torch.float64)
    for ranks in _some_candidates(instance, shape):
        delivered = str(instance.factorize_layer(weight, groups, ranks))
        try:
            promised = str(instance.structure_layer(shape, groups, ranks))
        except (RuntimeError, TypeError) as error:  # torch's, where a meta tensor is asked for a value
            raise NonConforming(
                "what factorize takes in values it takes on the meta device too, which has shapes only; a method that "
                f"looks at values overrides structure: {error}"
            ) from None
        require(promised == delivered, f"structure promises {promised} at ranks {ranks}, factorize gives {delivered}")


def check_error_falls(method: AnyMethod) -> None:
    """More rank, less error; none at full rank. Raises NonConforming."""
    conv = _taken(method, in_channels=8)
    kernel = conv.weight.detach()
    chosen = _some_candidates(_instance(method), _shape(conv))
    errors = [
        float((compose(factorize(conv, method, ranks)).detach() - kernel).norm() / kernel.norm()) for ranks in chosen
    ]
    falls = all(more > less for more, less in pairwise(errors))
    require(falls, f"the error falls with the rank: at {chosen} it is {errors}")
    last = errors[-1]
    require(last <= EXACT, f"at the last candidate, {chosen[-1]}, the error is rounding only, not {last:.1e}")


def check_layer_unchanged(method: AnyMethod) -> None:
    """The layer is not changed, and what takes its place is in its dtype. Raises NonConforming."""
    for dtype in (torch.float32, torch.float64):
        conv = _taken(method, dtype=dtype)
        before = conv.weight.detach().clone()
        factored = factorize(conv, method, "full")
        require(torch.equal(conv.weight, before), f"the layer that is factored, in {dtype}, is not changed")
        found = {parameter.dtype for parameter in factored.parameters()}
        require(found == {dtype}, f"the factors are in the layer's dtype, {dtype}, not {found}")


def check_not_finite(method: AnyMethod, value: float) -> None:
    """A kernel that holds NaN or infinity is refused, whatever its ranks are to come from. Raises NonConforming."""
    conv = _taken(method)
    conv.weight.data[0, 0, 0, 0] = value
    for ranks in ("full", "energy:0.9"):
        require_raises(InvalidWeights, "not finite", f"ranks {ranks!r}", partial(factorize, conv, method, ranks))
    budget = Budget(params=2)
    compressed = partial(compress, nn.Sequential(conv), method, budget, input_size=(conv.in_channels, 9, 9))
    require_raises(InvalidWeights, "not finite", f"budget {budget}", compressed)


def check_zero_kernel(method: AnyMethod) -> None:
    """A kernel of zeros stays zero at any rank. Raises NonConforming."""
    conv = _taken(method)
    nn.init.zeros_(conv.weight)
    for ranks in _some_candidates(_instance(method), _shape(conv)):
        kernel = compose(factorize(conv, method, ranks))
        require(not kernel.any(), f"a kernel of zeros stays zero at ranks {ranks}")  # NaN is not zero


def check_ranks_out_of_range(method: AnyMethod) -> None:
    """Ranks out of range, and what is no rank, are refused with what is wanted. Raises NonConforming."""
    conv = _taken(method)
    wrong: list[Any] = [0, -1, 10**6, 1.5, None, (), (1.5,), (1,) * 9]
    for ranks in wrong:
        require_raises(InvalidRanks, "wanted", f"ranks {ranks!r}", partial(factorize, conv, method, ranks))


def check_linear(method: AnyMethod) -> None:
    """Linear layers are exact at full rank, on inputs with and without further axes, or refused. Raises
    NonConforming.
    """
    linear = _linear()
    if refusal := _refused(linear, method, "a linear layer"):
        require("linear" in refusal, f"the refusal of a linear layer says so, unlike: {refusal}")
        return
    factored = _exact(linear, method, "a linear layer")
    for shape in ((3, 12), (2, 5, 12)):
        x = torch.randn(shape, dtype=torch.float64)
        require_close(factored(x), linear(x), EXACT, f"the output of a linear layer for an input {shape}")


def check_takes_something(method: AnyMethod) -> None:
    """Some of the layers that are tried here are not refused. Raises NonConforming."""
    tried = [*(convolution(**attributes) for attributes in CONVOLUTIONS.values()), _linear()]
    refusals = [_instance(method).refuse(Geometry.of(layer)) for layer in tried]
    require(not all(refusals), f"there is a layer that the method takes; all are refused, the first as: {refusals[0]}")


def check_gradients(method: AnyMethod) -> None:
    """Gradients that are finite and not all zero reach every factor. Raises NonConforming."""
    conv = _taken(method)
    chosen = _some_candidates(_instance(method), _shape(conv))
    factored = factorize(conv, method, chosen[len(chosen) // 2])
    factored(torch.randn(1, conv.in_channels, 9, 9, dtype=torch.float64)).square().sum().backward()
    for name, parameter in factored.named_parameters():
        gradient = parameter.grad
        reached = gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        require(reached, f"a gradient reaches {name}, so that it can be tuned")


def check_saved_and_loaded(method: AnyMethod) -> None:
    """A compressed model that is saved and loaded again computes the same. Raises NonConforming."""
    first = _taken(method, dtype=torch.float32, padding=1, groups=2)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(first.out_channels, 8, 1)).eval()
    size = (first.in_channels, 9, 9)
    compressed = compress(model, method, ranks="full", input_size=size)
    x = torch.randn(2, *size)
    with tempfile.TemporaryDirectory() as folder:
        compressed.save(folder)
        again = load(folder, model).model(x)
    require(torch.equal(again, compressed.model(x)), "a model that was saved and loaded again computes the same")


def _instance(method: AnyMethod) -> LayerMethod:
    instance = method_class(method)()
    require(isinstance(instance, LayerMethod), f"{instance.name} derives from LayerMethod: these checks are for those")
    assert isinstance(instance, LayerMethod)
    return instance


def _refused(layer: nn.Conv2d | nn.Linear, method: AnyMethod, what: str) -> str | None:
    """Why the method does not take the layer, None where it does."""
    reason = _instance(method).refuse(Geometry.of(layer))
    require(reason is None or bool(reason.strip()), f"a refused layer comes with a reason; {what} came without")
    return reason


def _exact(layer: nn.Conv2d | nn.Linear, method: AnyMethod, what: str) -> Factored:
    try:
        return factorize(layer, method, "full")
    except UnsupportedLayer as refusal:
        raise NonConforming(f"refuse says of {what} what factorize raises for it, not None: {refusal}") from None


def _linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, 8, dtype=torch.float64)


def _taken(method: AnyMethod, dtype: torch.dtype = torch.float64, **preferred: Any) -> nn.Conv2d:
    """A convolution that the method takes: with these attributes, else the first of CONVOLUTIONS that it does; where it
    takes none, the check is skipped.
    """
    for attributes in (preferred, *CONVOLUTIONS.values()):
        conv = convolution(**attributes | {"dtype": dtype})
        if _instance(method).refuse(Geometry.of(conv)) is None:
            return conv
    pytest.skip("the method refuses every convolution that is tried here")


def _shape(conv: nn.Conv2d) -> KernelShape:
    """That of one group's kernel."""
    return Geometry.of(conv).kernel


def _some_candidates(method: LayerMethod, shape: KernelShape) -> list[tuple[int, ...]]:
    """The least ranks, those in the middle, and the full ones; fewer where there are fewer."""
    candidates = [tuple(ranks) for ranks in method.candidates(shape)]
    require(bool(candidates), f"candidates lists ranks, the full ones last; of a kernel {tuple(shape)} it lists none")
    return [*dict.fromkeys((candidates[0], candidates[len(candidates) // 2], candidates[-1]))]


CHECKS: dict[str, Callable[[AnyMethod], None]] = {
    **{f"exact-{name}": partial(check_exact, **attributes) for name, attributes in CONVOLUTIONS.items()},
    **{
        f"exact-float32-{name}": partial(
            check_exact, tolerance=EXACT_FLOAT32, dtype=torch.float32, **CONVOLUTIONS[name]
        )
        for name in ("plain", "everything")
    },
    "exact-drawn-geometries": check_drawn_geometries,
    "takes-something": check_takes_something,
    "structure": partial(check_structure, groups=1),
    "structure-groups": partial(check_structure, groups=2),
    "error-falls": check_error_falls,
    "layer-unchanged": check_layer_unchanged,
    "not-finite-nan": partial(check_not_finite, value=float("nan")),
    "not-finite-inf": partial(check_not_finite, value=float("inf")),
    "zero-kernel": check_zero_kernel,
    "ranks-out-of-range": check_ranks_out_of_range,
    "linear": check_linear,
    "gradients": check_gradients,
    "saved-and-loaded": check_saved_and_loaded,
}
"""Every check by its name; each takes a method (a name or a class) and raises NonConforming, saying what is broken."""
