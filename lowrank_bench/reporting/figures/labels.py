"""Text beside points: where it covers neither a point nor other text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

_DISTANCE = 6  # points between a marker's centre and its text
_MARKER = 4  # points: half the width of what a text must not cover around a marker
_FOLDS = (1.0, 0.6, 0.45)  # the longest line at most, as a share of the text, in the order in which they are tried
_PLACES = (
    (1, 0, "left", "center"),
    (0.7, 0.7, "left", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
    (-1, 0, "right", "center"),
)
"""Right and up from the point, and the alignment of the text; above and below are left to the bars of intervals."""

_VEIL = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
"""Behind a text, so that lines across it do not strike it out."""


class Label(NamedTuple):
    """A point in data coordinates, and the text to be written beside it; empty for none."""

    x: float
    y: float
    text: str


def place_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each text beside its point, in the first place that is free, else in two or three lines; a text without
    room is left out.

    The layout of the figure must be final.
    """
    half = _MARKER * axes.figure.dpi / 72
    centres = axes.transData.transform([(label.x, label.y) for label in labels]) if labels else ()
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in centres]
    for label in labels:
        if label.text:
            taken += _write(axes, label, taken)


def _write(axes: Axes, label: Label, taken: Sequence[Bbox]) -> list[Bbox]:
    """The box that the text takes; none where it found no room."""
    frame = axes.get_window_extent()
    widths = [math.ceil(share * len(label.text)) for share in _FOLDS]
    forms = dict.fromkeys(textwrap.fill(label.text, width, break_long_words=False) for width in widths)
    for text, (right, up, horizontal, vertical) in product(forms, _PLACES):
        written = axes.annotate(
            text,
            (label.x, label.y),
            xytext=(right * _DISTANCE, up * _DISTANCE),
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize="x-small",
            bbox=_VEIL,
            in_layout=False,
        )
        box = written.get_window_extent()
        if frame.contains(*box.p0) and frame.contains(*box.p1) and not box.count_overlaps(taken):
            return [box]
        written.remove()
    return []
