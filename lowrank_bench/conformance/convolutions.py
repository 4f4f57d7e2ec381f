"""The convolutions on which a method must be exact, or refuse them: chosen ones, and any that hypothesis draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "unequal-strides": {"stride": (2, 1), "padding": (0, 2)},
    "dilation": {"dilation": 2, "padding": 2},
    "unequal-dilations": {"kernel_size": (3, 5), "dilation": (1, 2), "padding": (2, 1)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"in_channels": 6, "out_channels": 6, "groups": 6},
    "depth-multiplier": {"in_channels": 4, "out_channels": 8, "groups": 4},
    "same": {"padding": "same"},
    "same-even-kernel": {"kernel_size": (4, 3), "padding": "same"},
    "same-dilated-reflect": {"padding": "same", "dilation": 2, "padding_mode": "reflect"},
    "valid": {"padding": "valid"},
    "reflect": {"padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"padding": 2, "padding_mode": "replicate", "stride": (1, 2)},
    "circular": {"padding": (1, 2), "padding_mode": "circular"},
    "reflect-one-axis": {"kernel_size": (3, 1), "padding": (1, 0), "padding_mode": "reflect"},
    "no-bias": {"bias": False, "padding": 1},
    "1x1": {"kernel_size": 1},
    "1x1-stride": {"kernel_size": 1, "stride": 2},
    "1x1-padded": {"kernel_size": 1, "padding": 1},
    "5x5": {"kernel_size": 5, "padding": 2},
    "9x9": {"kernel_size": 9, "padding": 4},
    "row": {"kernel_size": (1, 7), "padding": (0, 3)},
    "column": {"kernel_size": (5, 1)},
    "rectangular": {"kernel_size": (2, 5), "stride": (1, 2)},
    "one-input-channel": {"in_channels": 1},
    "one-output-channel": {"out_channels": 1},
    "wide": {"in_channels": 2, "out_channels": 12},
    "narrow": {"in_channels": 12, "out_channels": 2},
    "everything": {
        "kernel_size": (3, 5),
        "stride": (2, 1),
        "padding": (2, 3),
        "dilation": (1, 2),
        "groups": 2,
        "padding_mode": "circular",
    },
}


def convolution(**attributes: Any) -> nn.Conv2d:
    """The same random convolution at every call: 6 -> 8 channels, 3x3, float64, but for ``attributes``."""
    torch.manual_seed(0)
    usual: dict[str, Any] = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "dtype": torch.float64}
    return nn.Conv2d(**usual | attributes)


def drawn_attributes(st: Any) -> Any:
    """A strategy of attributes for ``convolution``; ``st``: ``hypothesis.strategies``, which need not be installed."""

    def pairs(low: int, high: int) -> Any:
        return st.tuples(st.integers(low, high), st.integers(low, high))

    return st.fixed_dictionaries(
        {
            "groups": st.sampled_from([1, 1, 2, 3]),
            "in_channels": st.integers(1, 4),
            "out_channels": st.integers(1, 4),
            "kernel_size": pairs(1, 5),
            "stride": pairs(1, 3),
            "padding": pairs(0, 4),
            "dilation": pairs(1, 3),
            "bias": st.booleans(),
            "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
            "same": st.booleans(),
        }
    ).map(_consistent)


def _consistent(drawn: dict[str, Any]) -> dict[str, Any]:
    """Channels count per group; padding "same" goes with stride 1 only."""
    channels = {name: drawn["groups"] * drawn[name] for name in ("in_channels", "out_channels")}
    same = {"stride": 1, "padding": "same"} if drawn["same"] else {}
    return {name: value for name, value in drawn.items() if name != "same"} | channels | same
