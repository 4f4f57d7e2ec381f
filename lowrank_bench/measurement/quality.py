"""What compression costs in accuracy, paired over the same test images; and each image's outcome as raw data."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowrank_bench.errors import InvalidInput, InvalidRecord

RESAMPLES = 10_000


class Drop(NamedTuple):
    """Loss of top-1 in points (positive: the compressed model is worse) and its interval."""

    drop: float
    low: float
    high: float


class DropRatio(NamedTuple):
    """Loss of top-1 over another model's, and its interval, whose upper end may be infinite."""

    ratio: float
    low: float
    high: float


def paired_drop(
    control_hits: ArrayLike,
    compressed_hits: ArrayLike,
    group_sizes: Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Drop:
    """Return the loss of top-1 against the control, with the percentile interval of a paired cluster bootstrap.

    The hits (was the image classified correctly?) are of the same test images in the same order. ``group_sizes``: sizes
    of consecutive groups of images, such as the glyphs of one font family, which are right or wrong together and are
    resampled together; None: every image on its own. 10,000 resamples, the same ones at each call with one ``seed``.
    Images on which both models agree add nothing, so two models that agree on all have the interval [0, 0].
    Raises InvalidInput for hits or groups that do not match.
    """
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must lie between 0 and 1, got {confidence}")
    per_group = _lost_per_group(control_hits, [compressed_hits], group_sizes)
    sums = _resampled_sums(per_group, seed)
    low, high = np.quantile(100 * sums[:, 0] / sums[:, 1], [(1 - confidence) / 2, (1 + confidence) / 2])
    lost, images = per_group.sum(axis=1)
    return Drop(100 * float(lost / images), float(low), float(high))


def paired_drop_ratio(
    control_hits: ArrayLike,
    compressed_hits: ArrayLike,
    other_hits: ArrayLike,
    group_sizes: Sequence[int] | None = None,
) -> DropRatio | None:
    """Return the loss of top-1 over that of another model against the same control, with the 95 % interval of the
    bootstrap of ``paired_drop``, in which all three stay paired; None where the other model loses nothing.

    A resample in which the other loses nothing counts as infinite. Raises InvalidInput as paired_drop.
    """
    per_group = _lost_per_group(control_hits, [compressed_hits, other_hits], group_sizes)
    own, other, _ = per_group.sum(axis=1)
    if other <= 0:
        return None
    sums = _resampled_sums(per_group, seed=0)
    ratios = np.full(RESAMPLES, np.inf)
    np.divide(sums[:, 0], sums[:, 1], out=ratios, where=sums[:, 1] > 0)
    tail = RESAMPLES // 40
    ratios.sort()  # ends are taken from among them: between infinities there is nothing to interpolate
    return DropRatio(float(own / other), float(ratios[tail]), float(ratios[-1 - tail]))


def coarsest(groupings: Iterable[Sequence[int] | None]) -> list[int] | None:
    """Return, of ways to group the same images, the one whose groups hold whole groups of every other: what hangs
    together for any of them is resampled together. Raises InvalidInput where there is none.
    """
    different = {None if sizes is None else tuple(sizes) for sizes in groupings}
    if different == {None}:
        return None
    known = sorted((sizes for sizes in different if sizes is not None), key=len)
    ends = [set(accumulate(sizes)) for sizes in known]
    if None in different or not all(ends[0] <= others for others in ends):
        raise InvalidInput("the images are not the same ones: neither grouping's groups hold whole groups of the other")
    return list(known[0])


def agreement(predictions: ArrayLike, reference: ArrayLike) -> float:
    """Return the percentage of images on which two models predict the same class. Raises InvalidInput."""
    a, b = np.asarray(predictions), np.asarray(reference)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise InvalidInput(f"one predicted class per image is needed on both sides, got shapes {a.shape} and {b.shape}")
    return 100 * float(np.mean(a == b))


def pack_hits(hits: ArrayLike) -> str:
    """Pack one bit per image into text (bits, zlib, base64). Raises InvalidInput unless the hits are booleans."""
    return base64.b64encode(zlib.compress(np.packbits(_as_hits(hits)).tobytes(), level=9)).decode("ascii")


def unpack_hits(text: str, n: int) -> NDArray[np.bool_]:
    """Return the n hits that ``pack_hits`` made into this text. Raises InvalidRecord for damaged text or another n."""
    try:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=np.uint8)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise InvalidRecord(f"the packed hits of {n} images are damaged ({error}): run the trial again") from error
    if n < 0 or packed.size != -(-n // 8):
        raise InvalidRecord(f"{8 * packed.size} packed bits are not the hits of {n} images: run the trial again")
    return np.unpackbits(packed, count=n).astype(np.bool_)


def _lost_per_group(
    control_hits: ArrayLike, models_hits: Sequence[ArrayLike], group_sizes: Sequence[int] | None
) -> NDArray[np.int64]:
    """A row for each model, the images that it lost in each group, and a last row, the groups' sizes."""
    control, *models = (_as_hits(hits) for hits in (control_hits, *models_hits))
    if not control.size or any(model.shape != control.shape for model in models):
        sizes = ", ".join(str(side.size) for side in (control, *models))
        raise InvalidInput(f"hits of the same images are needed on all sides, got {sizes}")
    lost = np.stack([control.astype(np.int64) - model for model in models])
    if group_sizes is None:
        return np.vstack([lost, np.ones_like(lost[:1])])
    groups = np.asarray(group_sizes, dtype=np.int64)
    if not groups.size or (groups < 1).any() or groups.sum() != control.size:
        raise InvalidInput(f"group sizes must be positive and sum to {control.size} images, not to {groups.sum()}")
    return np.vstack([np.add.reduceat(lost, np.cumsum(groups) - groups, axis=1), groups])


def _resampled_sums(per_group: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The rows' sums over resampled groups, (RESAMPLES, rows)."""
    # Groups alike in all rows are interchangeable, so a resample is the count of each kind of group drawn.
    kinds, counts = np.unique(per_group, axis=1, return_counts=True)
    # A RandomState's stream is frozen; that of a Generator's multinomial changed in numpy 2.5, and the tables with it.
    drawn = np.random.RandomState(seed).multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    sums: NDArray[np.int64] = drawn @ kinds.T
    return sums


def _as_hits(hits: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(hits)
    if array.dtype != np.bool_ or array.ndim != 1:
        raise InvalidInput(f"hits must be one boolean per image, got {array.dtype} of shape {array.shape}")
    return array
