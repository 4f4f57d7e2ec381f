"""Clusters of equal size (Denton et al. 2014): of a kernel's inputs and outputs, and of the colours of first layers."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from lowrank_bench.decomposition.matrix import as_float64, check_rank, relative_error, truncated_svd
from lowrank_bench.errors import InvalidRanks

MAX_ROUNDS = 50


class Biclusters(NamedTuple):
    """Channel indices, inputs (S,) and outputs (T,): in kernel[outputs][:, inputs] a cluster's are neighbours."""

    inputs: Tensor
    outputs: Tensor


class Monochromatic(NamedTuple):
    """Colours (C' q, S, 1, 1), then filters (T, q, dh, dw) in C' groups, the k-th in place of filter outputs[k]."""

    colours: Tensor
    filters: Tensor
    outputs: Tensor
    error: float


def balanced_kmeans(rows: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Labels (n,) of clusters of equal size, by balanced assignment to the centres of scikit-learn's k-means.

    Optimal assignment and new centres alternate until nothing moves; each lowers the within-cluster sum of squares.
    On meta tensors neighbours make a cluster. Raises InvalidWeights, and InvalidRanks unless `clusters` divides n.
    """
    rows = as_float64(rows, "rows")
    count = len(rows)
    if clusters < 1 or count % clusters:
        valid = ", ".join(str(k) for k in range(1, count + 1) if count % k == 0)
        raise InvalidRanks(f"{count} channels cannot form {clusters} clusters of equal size: use one of {valid}")
    size = count // clusters
    labels = torch.arange(count) // size
    if rows.is_meta or clusters in (1, count):
        return labels
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans  # a second, which only Denton's method needs
    from sklearn.exceptions import ConvergenceWarning

    points = torch.linalg.qr(rows.cpu().T).R.T.contiguous()  # the same distances in at most n dimensions
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer distinct rows than clusters: ties are split evenly below
        found = KMeans(clusters, n_init=4, random_state=seed).fit(points.numpy())
    centres = torch.from_numpy(found.cluster_centers_)
    for _ in range(MAX_ROUNDS):
        seats = torch.cdist(points, centres).square().repeat_interleave(size, dim=1)
        assigned = torch.from_numpy(linear_sum_assignment(seats.numpy())[1]) // size
        if torch.equal(assigned, labels):
            break
        labels = assigned
        centres = torch.stack([points[labels == k].mean(dim=0) for k in range(clusters)])
    return labels


def bicluster(kernel: Tensor, in_clusters: int, out_clusters: int, seed: int = 0) -> Biclusters:
    """Independent clusterings of the inputs, as vectors of T dh dw weights, and of the outputs, of S dh dw.

    kernel (T, S, dh, dw); Denton et al. 2014, bi-clustering. Raises InvalidWeights, and InvalidRanks unless clusters
    divide channels.
    """
    return Biclusters(
        balanced_kmeans(kernel.transpose(0, 1).flatten(1), in_clusters, seed).argsort(stable=True),
        balanced_kmeans(kernel.flatten(1), out_clusters, seed).argsort(stable=True),
    )


def monochromatic(kernel: Tensor, colours: int, components: int = 1, seed: int = 0) -> Monochromatic:
    """Every filter of a first layer reads one of C' = `colours` maps that a 1x1 makes of the inputs.

    Denton et al. 2014, monochromatic approximation of a kernel (T, S, dh, dw): the leading left singular vectors of the
    filters W_f (S, dh dw) form C' clusters of equal size, as lines: u and -u are one colour, so that what is clustered
    is u u^T. The paper's colour is a cluster's centre; here it is the leading left singular vector of the cluster's
    filters side by side, the best colour once each filter is projected on it. `components` = q > 1 gives a cluster q
    maps; q = S is exact, while one map is exact only for filters of rank 1, however many the colours. Raises
    InvalidRanks and InvalidWeights.
    """
    kernel = as_float64(kernel)
    t, s, dh, dw = kernel.shape
    filters = kernel.flatten(2)
    outputs = balanced_kmeans(_as_lines(truncated_svd(filters, 1)[0].squeeze(-1)), colours, seed).argsort(stable=True)
    size = t // colours
    check_rank("components per colour", components, min(s, size * dh * dw))
    # One cluster's filters side by side: (C', S, size dh dw).
    clusters = filters[outputs].unflatten(0, (colours, size)).transpose(1, 2).flatten(2)
    u, d, vh = truncated_svd(clusters, components)
    left, right = u * d.sqrt().unsqueeze(1), d.sqrt().unsqueeze(2) * vh
    return Monochromatic(
        left.mT.reshape(colours * components, s, 1, 1),
        right.reshape(colours, components, size, dh, dw).transpose(1, 2).reshape(t, components, dh, dw),
        outputs,
        relative_error(left @ right, clusters),
    )


def _as_lines(units: Tensor) -> Tensor:
    """Points (T, T) as far from each other as the projectors u u^T of the unit vectors (T, S), whatever S is."""
    values, vectors = torch.linalg.eigh((units @ units.mT).square())
    points: Tensor = vectors * values.clamp(min=0).sqrt()
    return points
