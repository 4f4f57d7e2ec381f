"""How far a timing may reach: its interval, widened by the noise floor as for its verdict."""

from __future__ import annotations

from lowrank_bench.reporting.boards.board import Row


def reach(row: Row, name: str = "speedup") -> tuple[float, float]:
    """The ends of a row's speedup, or of another ratio of times that it has an interval of, each widened."""
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    return low / (1 + row.noise_floor), high * (1 + row.noise_floor)
