"""What a network's output loses when one layer is cut: measured on a few training images, one layer at a time."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_bench.compression.calibration import first_images
from lowrank_bench.compression.cost import Site
from lowrank_bench.compression.geometry import build
from lowrank_bench.compression.norms import factor_weighed
from lowrank_bench.compression.surgery import kernel_of, named_layer, swap
from lowrank_bench.errors import InvalidInput

if TYPE_CHECKING:
    from lowrank_bench.compression.method import Job, LayerMethod

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
    of the batch, on both sides, since a compressed network's are estimated anew.
    """

    def __init__(self, method: LayerMethod, dense: nn.Module, job: Job) -> None:
        """Raises InvalidInput without data or with fewer than two images, and InvalidData as first_images does."""
        if job.data is None:
            raise InvalidInput(
                "allocation 'sensitivity' is measured on images: give data, batches of (images, labels), or take "
                "allocation='price'"
            )
        images = torch.cat([batch for batch, _ in first_images(job.data(0), job.input_size, IMAGES)])
        if len(images) < 2:
            raise InvalidInput(f"allocation 'sensitivity' is measured on at least 2 images, got {len(images)}")
        self.method, self.seconds = method, method.options.probe_seconds
        self.chunks = images.tensor_split(max(1, len(images) // CHUNK))
        self.model = copy.deepcopy(dense).eval()
        for module in self.model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        self.dense = self._log_probabilities()

    def losses(
        self,
        name: str,
        site: Site,
        candidates: Sequence[tuple[int, ...]],
        shares: Sequence[float],
        errors: Sequence[float] | None,
        scale: Tensor | None = None,
    ) -> list[float]:
        """Loss at every candidate of a layer; ``shares``: its cost there over its dense cost, ``scale``: what
        weighs its output channels.

        It is measured at six candidates at most, for ``probe_seconds`` at most, and once in any case. Between them log
        loss is linear in the log of the squared relative ``errors``, to which it is proportional beyond them; of a
        method that has no errors, in that of the cost saved. It never falls as the error grows.
        """
        if min(shares) >= 1:
            return [LEAST] * len(shares)  # no candidate is cheaper than dense, so none will be taken
        grows_with = np.maximum([1 - share for share in shares] if errors is None else errors, LEAST)
        limit, found = time.monotonic() + self.seconds, {}
        for fraction in FRACTIONS:
            probe = _largest_below(shares, fraction)
            if probe in found:
                continue
            found[probe] = self._loss(name, site, candidates[probe], scale)
            if time.monotonic() > limit:
                break
        probes = sorted(found, key=lambda probe: grows_with[probe])
        at, losses = np.log(grows_with[probes]), np.log(np.maximum.accumulate([found[probe] for probe in probes]))
        x = np.log(grows_with)
        beyond = np.minimum(x - at[0], 0) + np.maximum(x - at[-1], 0)
        return [float(loss) for loss in np.exp(np.interp(x, at, losses) + beyond)]

    def _loss(self, name: str, site: Site, ranks: tuple[int, ...], scale: Tensor | None) -> float:
        """Of the layer factored in the Frobenius norm."""
        layer, geometry = named_layer(self.model, name), self.method.target_geometry(site.geometry)
        weight = kernel_of(layer, geometry.groups)
        chain = factor_weighed(self.method, weight, geometry.groups, ranks, f"layer {name!r}", scale=scale)
        factored = build(chain, geometry, layer.bias, layer.weight.dtype)
        swap(self.model, name, factored)
        try:
            found = self._log_probabilities()
        finally:
            swap(self.model, name, layer)
        return max(float(F.kl_div(found, self.dense, reduction="batchmean", log_target=True)), LEAST)

    def _log_probabilities(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self.model(chunk).double().log_softmax(1) for chunk in self.chunks])


def _largest_below(shares: Sequence[float], fraction: float) -> int:
    """Index of the costliest candidate of at most that share of the dense cost; of the cheapest where all cost more."""
    below = [index for index, share in enumerate(shares) if share <= fraction]
    return max(below, key=lambda index: shares[index]) if below else min(range(len(shares)), key=lambda i: shares[i])
