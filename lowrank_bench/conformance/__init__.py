"""What every layer-wise method promises, as checks that its author runs: exact at full rank, or refused by name."""

from lowrank_bench.conformance.checks import CHECKS

__all__ = ["CHECKS"]
