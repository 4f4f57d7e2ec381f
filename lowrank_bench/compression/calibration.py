"""What calibration images say about a layer: second moments of the patches that reach it, or what its weights mean for
the output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.given_data import Batch, check_labels, check_size, logits_of
from lowrank_bench.compression.watching import evaluating, input_of
from lowrank_bench.decomposition.shrinkage import shrinkage
from lowrank_bench.errors import InvalidData, InvalidInput

PATCHES_PER_IMAGE = 16  # per call of a layer; Zhang et al. 2016 draw 10 from each of 3,000 images
DEAD = 1e-6


@dataclass(frozen=True)
class PatchMoments:
    """Second moments of a layer's input patches, n = S dh dw values each, in float64: (groups, n, n).

    ``inputs``: E[y y^T] of the patches y that reach the layer now; ``cross``: E[x y^T] with the patches x that reached
    it in the dense network, which are the same ones until a layer before it is compressed. Both are shrunk alike
    towards a multiple of the unit matrix, see shrinkage. ``means``: E[x] and E[y], (groups, n), of moments about these;
    None of moments about zero.
    """

    inputs: Tensor
    cross: Tensor
    means: tuple[Tensor, Tensor] | None = None


def first_images(batches: Iterable[Batch], size: tuple[int, int, int], limit: int) -> Iterator[Batch]:
    """Batches of images of ``size`` (C, H, W), cut off after ``limit`` images. Raises InvalidData for images of another
    size or that are not finite, and InvalidInput at the end where there was none.
    """
    left = limit
    for number, (images, labels) in enumerate(batches):
        check_size(images, size, f"batch {number} of data")
        _check_finite(images, f"batch {number} of data")
        yield images[:left], labels[:left]
        left -= len(images)
        if left <= 0:
            return
    if left == limit:
        raise InvalidInput(
            "data holds no image: batches of (images, labels) are wanted, the same ones at every reading"
        )


def _check_finite(images: Tensor, place: str) -> None:
    if not torch.isfinite(images).all():
        raise InvalidData(
            f"{place} holds images with values that are not finite (NaN or infinity): leave those out, or look at how "
            "they are normalised"
        )


def _check_calibrated(sums: Tensor, name: str, what: str) -> None:
    if not torch.isfinite(sums).all():
        raise InvalidData(
            f"layer {name!r}: the {what} over the calibration images are not finite (NaN or infinity): look at how the "
            "images are normalised, give the model in float32, or take metric='frobenius'"
        )


def patch_moments(
    dense: nn.Module,
    model: nn.Module,
    sites: Mapping[str, Geometry],
    batches: Iterable[Batch],
    seed: int = 0,
    centred: Collection[str] = (),
) -> dict[str, PatchMoments]:
    """Moments of the layers named in ``sites``, over patches at random positions of every image; streamed, so that
    memory does not grow with the images. ``model`` is the dense network or a copy of it, in part compressed.
    ``centred``: the layers whose moments are about the mean. Of a network in half precision they are summed in float32.
    A pass ends at the last call of these layers that the first batch had. Raises InvalidData, naming the layer, where
    moments are not finite.
    """
    squares: dict[str, Tensor] = {}
    crossed: dict[str, Tensor] = {}  # stays empty while the model is the dense one, whose squares may take gigabytes
    calls: dict[str, int] = {}
    means: dict[str, tuple[Tensor, Tensor]] = {}
    counts = dict.fromkeys(sites, 0)
    for number, (images, _) in enumerate(batches):
        targets = _patches(dense, sites, images, seed + number, calls)
        inputs = targets if model is dense else _patches(model, sites, images, seed + number, calls)
        for name, patches in inputs.items():
            counts[name] += patches.shape[1]
            squares[name] = (patches.mT @ patches).double() + squares.get(name, 0)
            if model is not dense:
                crossed[name] = (targets[name].mT @ patches).double() + crossed.get(name, 0)
            if name in centred:
                both = targets[name].double().sum(1), patches.double().sum(1)
                means[name] = (means[name][0] + both[0], means[name][1] + both[1]) if name in means else both
    for name, sums in [*squares.items(), *crossed.items()]:
        _check_calibrated(sums, name, "squares of its inputs")
    return {
        name: _moments(squares.pop(name), crossed.pop(name, None), means.get(name), counts[name]) for name in [*squares]
    }


def input_magnitudes(
    model: nn.Module, sites: Mapping[str, Geometry], batches: Iterable[Batch], seed: int = 0
) -> dict[str, Tensor]:
    """Mean absolute value of every input channel of the layers named in ``sites``, the same for each of its taps:
    (groups, S dh dw), in float64; over the patches that ``patch_moments`` looks at. Channels that are always zero get a
    millionth of the largest value, by which one can divide. Raises InvalidData, naming the layer, where they are not
    finite.
    """
    sums: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    counts = dict.fromkeys(sites, 0)
    for number, (images, _) in enumerate(batches):
        for name, patches in _patches(model, sites, images, seed + number, calls).items():
            counts[name] += patches.shape[1]
            sums[name] = patches.abs().double().sum(1) + sums.get(name, 0)
    for name, total in sums.items():
        _check_calibrated(total, name, "sizes of its inputs")
    means = {name: (total / counts[name]).unflatten(1, (sites[name].kernel.S, -1)) for name, total in sums.items()}
    by_channel = {name: mean.mean(-1, keepdim=True).expand_as(mean).flatten(1) for name, mean in means.items()}
    return {name: value.clamp(min=float(value.max()) * DEAD or 1.0) for name, value in by_channel.items()}


def weight_importance(model: nn.Module, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Root of the summed squares, per weight, of the gradients that pull each image towards its most probable wrong
    label: the alpha of Denton et al. 2014's Mahalanobis metric (section 3.1), in the shape of the layer's weight.

    One backward pass for every image: the squares are of single images' gradients. Raises InvalidData, naming the
    layer, where they are not finite.
    """
    weights = {name: cast(Tensor, model.get_submodule(name).weight) for name in names}
    squares = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    with evaluating(model), _only_with_gradient(model, weights.values()):
        for images, labels in batches:
            for image, label in zip(images, labels, strict=True):
                logits = logits_of(model(image[None]))
                check_labels(label[None], logits.shape[1])
                wrong = logits.detach().clone()
                wrong[0, label] = -torch.inf
                loss = F.cross_entropy(logits, wrong.argmax(1))  # its gradient at the logits is U(I) - delta(l)
                for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                    squares[name] += gradient.double().square()
    for name, total in squares.items():
        _check_calibrated(total, name, "gradients of its weight")
    return {name: total.sqrt() for name, total in squares.items()}


@contextmanager
def _only_with_gradient(model: nn.Module, parameters: Iterable[Tensor]) -> Iterator[None]:
    """Gradients for these parameters only within; afterwards for those that had them before."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wanted = {id(parameter) for parameter in parameters}
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


class _HeardAll(BaseException):  # no model's own "except Exception" is to stop it
    """Ends a forward pass of which the rest is not wanted."""


def _patches(
    model: nn.Module, sites: Mapping[str, Geometry], images: Tensor, seed: int, calls: dict[str, int]
) -> dict[str, Tensor]:
    """(groups, patches, S dh dw) of every layer, over all its calls on these images; of a network in half precision in
    float32, as their squares leave the range of float16, and sums of squares the digits of bfloat16. ``calls``: how
    often each layer is called, which is noted at the first pass; later ones end once all were.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in sites}
    generator = torch.Generator().manual_seed(seed)  # the same positions in the dense and in the compressed network

    def hear(name: str, x: Tensor) -> None:
        found[name].append(_draw(x, sites[name], generator))
        if calls and all(len(found[name]) >= calls[name] for name in sites):
            raise _HeardAll

    with _listening(model, sites, hear), suppress(_HeardAll):
        model(images)
    calls |= {name: len(parts) for name, parts in found.items()}
    return {name: _summable(torch.cat(parts, 1)) for name, parts in found.items()}


def _summable(patches: Tensor) -> Tensor:
    return patches.float() if patches.dtype in (torch.float16, torch.bfloat16) else patches


@contextmanager
def _listening(model: nn.Module, names: Iterable[str], hear: Callable[[str, Tensor], None]) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda _layer, inputs, named: hear(name, input_of(inputs, named))

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True) for name in names]
    try:
        with evaluating(model), torch.inference_mode():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _draw(x: Tensor, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Patches at random output positions of every image, (groups, patches, S dh dw)."""
    if geometry.kind == "linear":
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        picked = torch.randint(rows.shape[1], (min(rows.shape[1], PATCHES_PER_IMAGE),), generator=generator)
        return rows[:, picked].reshape(1, -1, rows.shape[-1])
    height, width = geometry.output_size((x.shape[2], x.shape[3]), "hw")
    wanted = (x.shape[0], min(height * width, PATCHES_PER_IMAGE), 1)
    down, across = (torch.randint(size, wanted, generator=generator) for size in (height, width))
    shape, (sh, sw), (ah, aw) = geometry.kernel, geometry.stride, geometry.dilation
    padded = F.pad(x, geometry.margins, "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode)
    rows = down * sh + torch.arange(shape.dh) * ah  # (images, positions, dh)
    columns = across * sw + torch.arange(shape.dw) * aw
    images = torch.arange(x.shape[0])[:, None, None, None]
    taken = padded[images, :, rows[..., None], columns[:, :, None, :]]  # (images, positions, dh, dw, channels)
    by_group = taken.permute(4, 0, 1, 2, 3).reshape(geometry.groups, shape.S, -1, shape.dh, shape.dw)
    return by_group.transpose(1, 2).flatten(2)


def _moments(squares: Tensor, crossed: Tensor | None, sums: tuple[Tensor, Tensor] | None, count: int) -> PatchMoments:
    """From sums over ``count`` patches, ``crossed`` where these differ from the dense network's; about their mean where
    the ``sums`` of both themselves are given.
    """
    means = None if sums is None else (sums[0] / count, sums[1] / count)
    inputs = _about(squares / count, means and (means[1], means[1]))
    cross = None if crossed is None else _about(crossed / count, means)
    share, unit = shrinkage(inputs, count)
    inputs = (1 - share) * inputs + share * unit
    return PatchMoments(inputs, inputs if cross is None else (1 - share) * cross + share * unit, means)


def _about(moments: Tensor, means: tuple[Tensor, Tensor] | None) -> Tensor:
    """E[x y^T] about the means of both, (groups, n) each."""
    return moments if means is None else moments - means[0][:, :, None] * means[1][:, None, :]
