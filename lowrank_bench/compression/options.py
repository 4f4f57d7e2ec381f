"""What methods can be asked for: validated options, and those that every layer-wise method shares."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field, model_validator


class Options(PydanticModel):
    """Base of a method's options: frozen, validated, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LayerOptions(Options):
    """What every layer-wise method can be asked for: in which ``metric`` its factors are close to the dense kernel.

    "frobenius": of the kernel (filter reconstruction in Jaderberg et al. 2014). "covariance": of the responses to
    calibration images (data reconstruction; the data covariance of Denton et al. 2014); with ``sequential``, to what
    reaches the layer once those before it are compressed, and with ``centred`` about their mean (Zhang et al. 2016,
    section 3.1), whose error the layer's bias takes or else the batch norm behind it; where there is neither, as
    without. "mahalanobis": weighted by how far a weight pulls images to wrong labels (Denton et al. 2014, section 3.1).
    "activation": every input channel weighted by the root of its mean absolute value (ASVD, Yuan et al. 2023, alpha =
    1/2). All but the first need data, start from its factors or from a closed form and move all of a layer's factors
    together; layers with more than 8,192 weights per filter stay with it.
    ``align``: a budget is met with ranks in multiples of it, which vector units like; a layer whose ranks cannot be so
    large is free of it. ``allocation``: a budget is shared at one "price" for all layers, weighed by their errors, or
    as the same "uniform" fraction of each one's cost. "sensitivity": at one price, weighed by what the output loses
    when only this layer is cut, measured on training images at a few ranks of every layer; no more of them are tried
    once a layer took ``probe_seconds``, so that on a slow machine fewer are, and other ranks may come of it.
    ``batch_norm``: errors count as they leave the batch norm behind the layer ("folded"), or as they enter it
    ("ignored"); metric "mahalanobis" knows what it does to the output anyhow.
    """

    metric: Literal["frobenius", "covariance", "mahalanobis", "activation"] = "frobenius"
    sequential: bool = False
    centred: bool = False
    align: int = Field(1, ge=1)
    allocation: Literal["price", "uniform", "sensitivity"] = "price"
    probe_seconds: float = Field(60.0, gt=0)
    batch_norm: Literal["folded", "ignored"] = "folded"

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        for name in ("sequential", "centred"):
            if getattr(self, name) and self.metric != "covariance":
                raise ValueError(f"{name} belongs to metric='covariance': set that, or leave {name} out")
        if "probe_seconds" in self.model_fields_set and self.allocation != "sensitivity":
            raise ValueError("probe_seconds would do nothing without allocation='sensitivity': leave it out")
        return self
