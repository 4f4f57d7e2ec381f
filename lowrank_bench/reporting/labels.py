"""Text beside points: where it covers neither a point nor other text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

_DISTANCE = 6  # points between a marker's centre and its text
_MARKER = 4  # points: half the width of what a text must not cover around a marker
_PLACES = (
    (1, 0, "left", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (-1, 0, "right", "center"),
    (0.7, 0.7, "left", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
)


def place_labels(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write each non-empty text beside its point, in the first place that is free; a text without room is left out.

    ``points`` are in data coordinates; the layout of the figure must be final.
    """
    dots = axes.figure.dpi / 72
    half = _MARKER * dots
    centres = axes.transData.transform(np.reshape(points, (-1, 2)))
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in centres]
    for point, text in zip(points, texts, strict=True):
        if text:
            taken += _write(axes, point, text, taken)


def _write(axes: Axes, point: tuple[float, float], text: str, taken: Sequence[Bbox]) -> list[Bbox]:
    """The box that the text takes; none where it found no room."""
    frame = axes.get_window_extent()
    for right, up, horizontal, vertical in _PLACES:
        label = axes.annotate(
            text,
            point,
            xytext=(right * _DISTANCE, up * _DISTANCE),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize="x-small",
            in_layout=False,
        )
        box = label.get_window_extent()
        inside = (
            frame.containsx(box.x0) and frame.containsx(box.x1) and frame.containsy(box.y0) and frame.containsy(box.y1)
        )
        if inside and not box.count_overlaps(taken):
            return [box]
        label.remove()
    return []
