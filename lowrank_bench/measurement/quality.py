"""What compression costs in accuracy, paired over the same test images; and each image's outcome as raw data."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
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
    control, compressed = _as_hits(control_hits), _as_hits(compressed_hits)
    if control.shape != compressed.shape or not control.size:
        raise InvalidInput(f"hits of the same images are needed on both sides, got {control.size}, {compressed.size}")
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must lie between 0 and 1, got {confidence}")
    lost, sizes = _per_group(control.astype(np.int64) - compressed, group_sizes)
    # Groups alike in size and loss are interchangeable, so a resample is the count of each kind of group drawn.
    kinds, counts = np.unique(np.stack([lost, sizes]), axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(sizes), counts / counts.sum(), size=RESAMPLES)
    drops = 100 * (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.quantile(drops, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Drop(100 * float(lost.sum() / sizes.sum()), float(low), float(high))


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


def _as_hits(hits: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(hits)
    if array.dtype != np.bool_ or array.ndim != 1:
        raise InvalidInput(f"hits must be one boolean per image, got {array.dtype} of shape {array.shape}")
    return array


def _per_group(
    lost: NDArray[np.int64], group_sizes: Sequence[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images lost in each group, and the groups' sizes."""
    if group_sizes is None:
        return lost, np.ones_like(lost)
    sizes = np.asarray(group_sizes, dtype=np.int64)
    if not sizes.size or (sizes < 1).any() or sizes.sum() != lost.size:
        raise InvalidInput(f"group sizes must be positive and sum to {lost.size} images, not to {sizes.sum()}")
    return np.add.reduceat(lost, np.cumsum(sizes) - sizes), sizes
