"""Random variation of glyphs, in integers: a seed gives the same pixels on every machine and torch version.

Interpolation in floating point (``grid_sample``) rounds differently under other vector instructions, so a test set
that is checked by its hash cannot use it. Random words are PCG64's raw output: numpy promises that stream for ever,
not those of its distributions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 24  # pixels of an image, height and width
_FULL_INK = 15 * 32 * 32  # greys of a glyph by the two weights of the interpolation
_GRID = 4  # clutter is a grid of random greys, interpolated

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Strength:
    """How far the variation goes; each draw is uniform over its range."""

    size: tuple[float, float] = (14.0, 22.0)  # pixels that the glyph's longer side takes
    aspect: float = 0.18  # width over height, 1 - aspect to 1 + aspect
    rotation: float = 0.2  # tangent of half the largest angle: 0.2 is 23 degrees
    shear: float = 0.35
    shift: float = 2.5  # pixels
    blur: float = 80.0  # of 256: largest weight of each neighbour
    contrast: tuple[float, float] = (60.0, 200.0)  # grey levels between ink and paper
    clutter: float = 70.0  # grey levels, largest
    noise: float = 40.0  # grey levels, largest; triangular, so its standard deviation is 0.41 of it


def vary(glyphs: Tensor, words: np.random.PCG64, strength: Strength) -> Tensor:
    """Draw one variation of each glyph: (N, H, H) uint8 of 0 to 15 to (N, 24, 24) uint8 of 0 to 255."""
    count = len(glyphs)
    u = iter(uniform(words, 12, count))
    ink = _warp(glyphs, *_sampling(glyphs.shape[-1], [next(u) for _ in range(6)], strength))
    ink = _blurred(ink, _column(next(u) * strength.blur))
    low, high = strength.contrast
    contrast = low + next(u) * (high - low)
    paper = next(u) * (255 - contrast)
    reverse = next(u) < 0.5
    image = ink * _column(np.where(reverse, -contrast, contrast) * (1 << 14) / _FULL_INK) >> 14
    image += _column(np.where(reverse, paper + contrast, paper))
    image += _clutter(words, count) * _column(next(u) * strength.clutter) >> 15
    image += _noise(words, count) * _column(next(u) * strength.noise) >> 8
    return image.clamp_(0, 255).to(torch.uint8)


def uniform(words: np.random.PCG64, *shape: int) -> Reals:
    """Uniform draws in [0, 1), exact multiples of 2^-16."""
    return _bytes(words, *shape, 2).view("<u2")[..., 0] / 65536.0


def shuffled(words: np.random.PCG64, count: int) -> Tensor:
    """The numbers below ``count`` in a random order."""
    return torch.from_numpy(np.argsort(uniform(words, count), kind="stable"))


def _bytes(words: np.random.PCG64, *shape: int) -> NDArray[np.uint8]:
    size = int(np.prod(shape))
    raw: NDArray[np.uint64] = words.random_raw(-(-size // 8))
    return raw.astype("<u8").view(np.uint8)[:size].reshape(shape)


def _column(values: Reals) -> Tensor:
    """One integer per image, shaped to broadcast over its pixels."""
    return torch.from_numpy(np.rint(values).astype(np.int32))[:, None, None]


def _sampling(size: int, u: list[Reals], strength: Strength) -> tuple[Tensor, Tensor]:
    """Where each pixel of the image lies in the glyph: x and y, (N, 24, 24), in 1/32 of the glyph's pixels.

    Only +, -, * and / touch the reals, and those IEEE 754 rounds alike everywhere; sine and cosine come from the
    tangent of half the angle.
    """
    small, large = strength.size
    scale = size / (small + u[0] * (large - small))
    stretch = 1 + strength.aspect * (2 * u[1] - 1)
    tangent = strength.rotation * (2 * u[2] - 1)
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    shear = strength.shear * (2 * u[3] - 1)
    shift_x, shift_y = (strength.shift * (2 * value - 1) for value in u[4:6])
    # Glyph from image: shift, then rotation, then shear and stretch along x.
    row_x = (scale / stretch) * (cosine + shear * sine), (scale / stretch) * (shear * cosine - sine)
    row_y = scale * sine, scale * cosine
    steps = 2 * torch.arange(SIZE, dtype=torch.int32) - (SIZE - 1)  # half pixels from the centre
    places = []
    for along_x, along_y in (row_x, row_y):
        middle = (size - 1) / 2 - along_x * shift_x - along_y * shift_y
        across, down = _column(along_x * 1024) * steps[None, None, :], _column(along_y * 1024) * steps[None, :, None]
        places.append((across + down + _column(middle * 2048)) >> 6)
    return places[0], places[1]


def _warp(glyphs: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample the glyphs bilinearly at x and y, in 1/32 pixel; full ink is _FULL_INK."""
    count, size = len(glyphs), glyphs.shape[-1]
    width = size + 4  # two pixels of paper on each side, so that every clamped place interpolates paper
    padded = torch.nn.functional.pad(glyphs, (2, 2, 2, 2)).reshape(count, -1)
    column, row = ((place >> 5).clamp_(-2, size).add_(2) for place in (x, y))
    corner = (row * width + column).reshape(count, -1).long()
    right, down = x & 31, y & 31

    def pixel(offset: int) -> Tensor:
        return padded.gather(1, corner + offset).reshape(x.shape).int()

    top = pixel(0) * (32 - right) + pixel(1) * right
    bottom = pixel(width) * (32 - right) + pixel(width + 1) * right
    return top * (32 - down) + bottom * down


def _blurred(ink: Tensor, weight: Tensor) -> Tensor:
    """Blur by [weight, 256 - 2 weight, weight] / 256 along both axes."""
    for axis in (1, 2):
        edges = (1, 1) if axis == 2 else (0, 0, 1, 1)
        padded = torch.nn.functional.pad(ink, edges)
        sides = padded.narrow(axis, 0, SIZE) + padded.narrow(axis, 2, SIZE)
        ink = (ink * (256 - 2 * weight) + sides * weight) >> 8
    return ink


def _clutter(words: np.random.PCG64, count: int) -> Tensor:
    """Low-frequency greys: a grid of -128 to 127, interpolated linearly to (N, 24, 24) in units of 1/256."""
    grid = torch.from_numpy(_bytes(words, count, _GRID, _GRID).astype(np.int32) - 128)
    place = torch.arange(SIZE) * (_GRID - 1) * 16 // (SIZE - 1)  # in 1/16 of a cell
    weights = (16 - (place[:, None] - 16 * torch.arange(_GRID)).abs()).clamp_(min=0).int()
    return weights @ grid @ weights.T


def _noise(words: np.random.PCG64, count: int) -> Tensor:
    """White noise of each pixel: the sum of two uniform bytes, -255 to 255."""
    pair = torch.from_numpy(_bytes(words, 2, count, SIZE, SIZE)).int()
    return pair[0] + pair[1] - 255
