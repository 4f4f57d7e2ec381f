"""What a network's output loses when one layer is cut: measured on a few training images, one layer at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.compression.calibration import first_images
from lowrank_bench.compression.choices import Choice, error_of
from lowrank_bench.compression.cost import Site
from lowrank_bench.compression.factoring import LayerFactoring
from lowrank_bench.compression.geometry import build
from lowrank_bench.compression.given_data import logits_of
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.means import centred_bias
from lowrank_bench.compression.norms import factor_weighed, output_scale
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.compression.surgery import kernel_of, named_layer, swap
from lowrank_bench.compression.targets import Targets
from lowrank_bench.errors import InvalidInput

VERSION = 2
"""Raised by hand when a change here would change the ranks that a budget is met with."""

IMAGES = 256
CHUNK = 64  # images in one forward pass
FRACTIONS = (1 / 8, 0, 1 / 2, 1 / 32, 1 / 4, 1 / 16)
"""Of a layer's dense cost: where it is probed, in the order in which time may run out. At 0 it is at its cheapest: the
error hardly grows any more on the way there, while the loss does.
"""

LEAST = 1e-9
"""Smallest loss and error that count: logarithms are taken of both."""


class Sensitivity:
    """Divergence of the output from the dense network's when one layer alone is factored.

    Mean over images of KL(p || p^) between the predicted distributions, in nats: zero for the dense network, quadratic
    in small changes of its logits, and additive over layers to second order where their changes are unrelated. Labels
    are not looked at, nor test images: the images are the first 256 of the job's data. Batch norms use the statistics
    of the batch, on both sides, since a compressed network's are estimated anew. A layer is factored in the method's
    metric, though with what reaches it in the dense network.
    """

    def __init__(
        self, method: LayerFactoring, dense: nn.Module, job: Job, sites: Mapping[str, Site], norms: Mapping[str, str]
    ) -> None:
        """Of the layers in ``sites``; ``norms``: the batch norms that weigh their output channels. Raises InvalidInput
        without data or with fewer than two images, and InvalidData as first_images does.
        """
        if job.data is None:
            raise InvalidInput(
                "allocation 'sensitivity' is measured on images: give data, batches of (images, labels), or take "
                "allocation='price'"
            )
        images = torch.cat([batch for batch, _ in first_images(job.data(0), job.input_size, IMAGES)])
        if len(images) < 2:
            raise InvalidInput(f"allocation 'sensitivity' is measured on at least 2 images, got {len(images)}")
        self.method, self.seconds = method, method.options.probe_seconds
        self.geometries = {name: method.target_geometry(site.geometry) for name, site in sites.items()}
        self.scales = {name: output_scale(dense, norms.get(name)) for name in sites}
        self.targets = Targets(method.options.model_copy(update={"sequential": False}), dense, job, self.geometries)
        self.chunks = images.tensor_split(max(1, len(images) // CHUNK))
        self.model = copy_of(dense).eval()
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        self.dense = self._log_probabilities()

    def choices(self, name: str, options: Sequence[Choice]) -> list[Choice]:
        """A layer's choices, dense first, with what each of the others loses.

        It is measured at six of them at most, for ``probe_seconds`` at most, and once in any case. Between those log
        loss is linear in the log of the squared relative error, to which it is proportional beyond them; of a method
        that has no errors, in that of the cost saved. It never falls as the error grows.
        """
        dense, *factored = options
        shares = [choice.cost / dense.cost for choice in factored]
        losses = [LEAST] * len(factored)  # where no candidate is cheaper than dense, so that none will be taken
        if min(shares) < 1:
            found = self._probed(name, factored, shares)
            saved = [1 - share for share in shares]
            errors = [
                left if choice.error is None else choice.error for choice, left in zip(factored, saved, strict=True)
            ]
            losses = _through(found, errors)
        return [dense, *(replace(choice, error=error_of(loss)) for choice, loss in zip(factored, losses, strict=True))]

    def _probed(self, name: str, factored: Sequence[Choice], shares: Sequence[float]) -> dict[int, float]:
        """Losses by the index of the choice."""
        limit, found = time.monotonic() + self.seconds, dict[int, float]()
        for fraction in FRACTIONS:
            probe = _largest_below(shares, fraction)
            if probe in found:
                continue
            ranks = factored[probe].ranks
            assert ranks is not None  # it is factored
            found[probe] = self._loss(name, ranks)
            if time.monotonic() > limit:
                break
        return found

    def _loss(self, name: str, ranks: tuple[int, ...]) -> float:
        layer, geometry = named_layer(self.model, name), self.geometries[name]
        weight, target = kernel_of(layer, geometry.groups), self.targets.of(name, self.model)
        chain = factor_weighed(
            self.method, weight, geometry.groups, ranks, f"layer {name!r}", target, self.scales[name]
        )
        bias = centred_bias(layer.bias, target, chain, geometry.groups)
        swap(self.model, name, build(chain, geometry, bias, layer.weight.dtype))
        try:
            found = self._log_probabilities()
        finally:
            swap(self.model, name, layer)
        return max(float(F.kl_div(found, self.dense, reduction="batchmean", log_target=True)), LEAST)

    def _log_probabilities(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([logits_of(self.model(chunk)).double().log_softmax(1) for chunk in self.chunks])


def _through(found: Mapping[int, float], errors: Sequence[float]) -> list[float]:
    """Losses of all choices from those ``found`` at some."""
    x = np.log(np.maximum(errors, LEAST))
    probes = sorted(found, key=lambda probe: x[probe])
    at, losses = x[probes], np.log(np.maximum.accumulate([found[probe] for probe in probes]))
    beyond = np.minimum(x - at[0], 0) + np.maximum(x - at[-1], 0)
    return [float(loss) for loss in np.exp(np.interp(x, at, losses) + beyond)]


def _largest_below(shares: Sequence[float], fraction: float) -> int:
    """Index of the costliest candidate of at most that share of the dense cost; of the cheapest where all cost more."""
    below = [index for index, share in enumerate(shares) if share <= fraction]
    return max(below, key=lambda index: shares[index]) if below else min(range(len(shares)), key=lambda i: shares[i])
