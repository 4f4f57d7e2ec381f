"""What each layer of a network is to be approximated in: its own kernel as it is, or calibrated on images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lowrank_bench.compression.calibration import (
    PatchMoments,
    first_images,
    input_magnitudes,
    patch_moments,
    weight_importance,
)
from lowrank_bench.compression.geometry import Geometry
from lowrank_bench.compression.given_data import Batch
from lowrank_bench.compression.job import Job
from lowrank_bench.compression.means import takers_of_means
from lowrank_bench.compression.metric import Means, ResponseMetric, Target, WeightedMetric
from lowrank_bench.compression.options import LayerOptions
from lowrank_bench.compression.surgery import kernel_of, named_layer
from lowrank_bench.errors import InvalidInput

MOMENT_IMAGES = 2048
GRADIENT_IMAGES = 256
LARGEST_PATCH = 8192  # values; its moments then take 0.5 GB


class Targets:
    """Targets of the layers named in ``sites``, calibrated as a method's options ask, on the first images of a job's
    data.

    Raises InvalidInput where there are no data to calibrate on, or no image in them, and InvalidData for images that
    cannot be calibrated on, see first_images.
    """

    def __init__(self, options: LayerOptions, dense: nn.Module, job: Job, sites: Mapping[str, Geometry]) -> None:
        self.options, self.dense, self.job = options, dense, job
        self.sites = {name: site for name, site in sites.items() if site.kernel.patch <= LARGEST_PATCH}
        if options.metric != "frobenius" and job.data is None:
            raise InvalidInput(
                f"metric {options.metric!r} is calibrated on images: give data, batches of (images, labels), or take "
                "metric='frobenius'"
            )
        metric = options.metric if self.sites else "frobenius"  # where there is nothing to calibrate
        self.takers = takers_of_means(dense, job.input_size, list(self.sites)) if options.centred else {}
        self.moments: dict[str, PatchMoments] = {}
        if metric == "covariance" and not options.sequential:
            self.moments = self._moments(dense, self.sites)
        self.magnitudes: dict[str, Tensor] = {}
        if metric == "activation":
            self.magnitudes = input_magnitudes(dense, self.sites, self._images(MOMENT_IMAGES))
        self.importance = {}
        if metric == "mahalanobis":
            self.importance = weight_importance(dense, self.sites, self._images(GRADIENT_IMAGES))

    def of(self, name: str, model: nn.Module) -> Target | None:
        """The target of a layer; ``model``: a copy of the dense network whose layers before it are compressed. None:
        the kernel itself, in the Frobenius norm.
        """
        if name not in self.sites or self.options.metric == "frobenius":
            return None
        kernel = kernel_of(named_layer(self.dense, name), self.sites[name].groups).double()
        if name in self.importance:
            return Target(kernel, WeightedMetric(self.importance[name].reshape(kernel.shape)))
        if name in self.magnitudes:
            magnitudes = self.magnitudes[name]
            roots = magnitudes.sqrt()[:, None]  # ASVD's S = diag(mean |x|)^alpha, alpha = 1/2
            rows = kernel.reshape(len(magnitudes), -1, magnitudes.shape[-1])
            return Target(kernel, WeightedMetric(roots.expand_as(rows).reshape(kernel.shape)), magnitudes)
        moments = self.moments.get(name) or self._moments(model, {name: self.sites[name]})[name]
        rows = kernel.reshape(len(moments.inputs), -1, self.sites[name].kernel.patch)
        means = None
        if moments.means is not None:
            response = (rows @ moments.means[0][..., None]).flatten()
            means = Means(response, moments.means[1], self.takers[name])
        if not self.options.sequential:
            return Target(kernel, ResponseMetric(moments.inputs), moments.inputs, means)
        # the kernel whose responses to the inputs as they are now come nearest to those of the dense network
        best = torch.linalg.solve(moments.inputs, rows @ moments.cross, left=False)
        return Target(best.reshape(kernel.shape), ResponseMetric(moments.inputs), moments.inputs, means)

    def _moments(self, model: nn.Module, sites: Mapping[str, Geometry]) -> dict[str, PatchMoments]:
        return patch_moments(self.dense, model, sites, self._images(MOMENT_IMAGES), centred=self.takers)

    def _images(self, limit: int) -> Iterator[Batch]:
        assert self.job.data is not None  # the constructor made sure
        return first_images(self.job.data(0), self.job.input_size, limit)
