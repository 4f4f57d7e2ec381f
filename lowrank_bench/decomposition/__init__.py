"""Tensor algebra on plain tensors; knows nothing of networks."""

from lowrank_bench.decomposition.cp import cp_als, cp_nls
from lowrank_bench.decomposition.separable import separable
from lowrank_bench.decomposition.tensor_train import tt_svd
from lowrank_bench.decomposition.tucker import tucker2
from lowrank_bench.decomposition.vbmf import evbmf

__all__ = ["cp_als", "cp_nls", "evbmf", "separable", "tt_svd", "tucker2"]
