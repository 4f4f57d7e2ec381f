"""How a claim's condition, its number and the model that is meant are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from lowrank_bench.reporting.boards.cells import interval_text, where_text, with_unstable
from lowrank_bench.reporting.claims.estimates import Candidate, Estimate
from lowrank_bench.reporting.claims.paper import Check

_SIGNS = {"at_least": "≥", "at_most": "≤", "not_below": "not below", "not_above": "not above"}


class _Form(NamedTuple):
    """How a metric is called, and its number written."""

    name: str
    number: str
    unit: str


_FORMS = {
    "speedup": _Form("speedup", ".2f", " times as fast"),
    "realised": _Form("share of the MACs ratio", ".0%", " of the MACs ratio realised"),
    "practical": _Form("practical speedup", ".2f", " times as fast in the fastest runtimes, dense and compressed"),
    "loss": _Form("loss", "+.2f", " points lost"),
    "loss_as_it_came": _Form("loss from the network as it came", "+.2f", " points from the network as it came"),
    "loss_ratio": _Form("loss over the other's", ".2f", " of the other's loss"),
    "params_ratio": _Form("ratio of parameters", ".2f", "x fewer parameters"),
    "macs_ratio": _Form("ratio of MACs", ".2f", "x fewer MACs"),
    "layer_params_ratio": _Form("ratio of the layer's parameters", ".2f", "x fewer parameters in {layer}"),
    "layer_macs_ratio": _Form("ratio of the layer's MACs", ".2f", "x fewer MACs in {layer}"),
    "weight_error": _Form("relative error", ".3f", " relative error of {layer}"),
    "weight_error_ratio": _Form("ratio of errors", ".3f", " times the other's error of {layer}"),
}
_ALWAYS_WITH_INTERVAL = {"speedup", "realised", "loss"}
_COUNTED = {"params_ratio", "macs_ratio", "layer_params_ratio", "layer_macs_ratio"}
_FITTED = {"weight_error", "weight_error_ratio"}
COUNT = "exact count"
"""What a number is called that no chance is in."""


def condition_text(check: Check) -> str:
    """Such as ``speedup ≥ 8.5``; empty for a number that is only shown."""
    form = _FORMS[check.metric]
    return " ".join(f"{form.name} {_SIGNS[name]} {value:g}" for name, value in check.conditions.items())


def number_text(check: Check, estimate: Estimate) -> str:
    """Such as ``2.40 [2.38, 2.42] times as fast``; without an interval the number alone, and what it is: of a count
    only where something is asked of it.
    """
    form = _FORMS[check.metric]
    if check.metric in _ALWAYS_WITH_INTERVAL or estimate.low != estimate.high:
        text = interval_text(estimate.value, estimate.low, estimate.high, form.number)
    else:
        text = f"{estimate.value:{form.number}}"
    kind = kind_text(check, estimate)
    shown = bool(kind) and (bool(check.conditions) or kind != COUNT)
    return text + form.unit.format(layer=check.layer) + (f" ({kind})" if shown else "")


def kind_text(check: Check, estimate: Estimate) -> str:
    """What a number is that has no 95 % interval; empty of one that has."""
    if check.metric in _COUNTED | _FITTED and estimate.low != estimate.high:
        return "range of the seeds"
    if check.metric in _COUNTED:
        return COUNT
    if check.metric in _ALWAYS_WITH_INTERVAL or estimate.low != estimate.high:
        return ""
    return "point estimate"


def candidate_text(candidate: Candidate) -> str:
    """The model, its setting, whether its processes disagree there, its seeds, its top-1 beside the dense network's,
    and what it is compared with, with that one's top-1.
    """
    text = _name(candidate.models)
    if len(candidate.timed):
        timed = candidate.timed.iloc[0]
        text += f" in {where_text(timed)}"
        text = with_unstable(text, bool(candidate.timed["unstable"].any()))
    seeds = len(candidate.models)
    text += f", {seeds} seeds" if seeds > 1 else ", 1 seed"
    if candidate.models["top1_after"].notna().any():
        before, after = (candidate.models[name].mean() for name in ("top1_dense", "top1_after"))
        text += f", top-1 {before:.1f} dense, {after:.1f} %"
    if candidate.others is None:
        return text
    text += f", against {_name(candidate.others, ['method', 'options'])}"
    own, other = (rows.iloc[0]["recipe"] for rows in (candidate.models, candidate.others))
    if own != other:
        text += f" tuned by {other}"
    return (
        text
        if candidate.others["top1_after"].isna().all()
        else f"{text}, {candidate.others['top1_after'].mean():.1f} %"
    )


def _name(rows: pd.DataFrame, columns: Sequence[str] = ("method", "options", "target")) -> str:
    return " ".join(filter(None, (str(rows.iloc[0][column]) for column in columns)))
