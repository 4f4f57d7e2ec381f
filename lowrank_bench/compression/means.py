"""Where a factored layer's error in the mean of its responses is put right: its bias, or the batch norm behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lowrank_bench.compression.chain import Chain
from lowrank_bench.compression.metric import Target
from lowrank_bench.compression.norms import following_norms
from lowrank_bench.compression.surgery import named_layer


def takers_of_means(model: nn.Module, input_size: tuple[int, ...], names: Collection[str]) -> dict[str, str | None]:
    """Those of the named layers of whose responses the mean can be put right: None for one with a bias, and else the
    name of the batch norm that takes its responses and no other layer's, if that has running statistics. What else
    takes them, such as a shortcut, keeps the error of the mean.
    """
    without = [name for name in names if named_layer(model, name).bias is None]
    layers = [name for name, module in model.named_modules() if isinstance(module, _ConvNd | nn.Linear)]
    norms = following_norms(model, input_size, layers, by_channel=True)
    times = Counter(norms.values())
    own = {name: norm for name in without if (norm := norms.get(name))}
    found = {name: norm for name, norm in own.items() if times[norm] == 1 and _remembers(model, norm)}
    return dict.fromkeys(set(names) - set(without)) | found


def centred_bias(bias: Tensor | None, target: Target | None, chain: Chain, groups: int) -> Tensor | None:
    """The bias of a layer's chain: with what its mean lacks, where it is the bias that takes this."""
    if target is None or target.means is None or bias is None:
        return bias
    return bias.detach().double() + target.means.shift(chain, groups)


def centre_norm(model: nn.Module, target: Target | None, chain: Chain, groups: int) -> None:
    """Let the batch norm behind a layer take what its chain's mean lacks, where there is no bias to do so."""
    if target is None or target.means is None or target.means.norm is None:
        return
    norm = model.get_submodule(target.means.norm)
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None  # takers_of_means made sure
    with torch.no_grad():
        norm.running_mean -= target.means.shift(chain, groups).to(norm.running_mean)


def _remembers(model: nn.Module, norm: str) -> bool:
    module = model.get_submodule(norm)
    return isinstance(module, _BatchNorm) and module.running_mean is not None
