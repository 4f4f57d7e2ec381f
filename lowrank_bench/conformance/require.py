"""What a check does with a promise: nothing where it holds, NonConforming where it does not."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lowrank_bench.errors import LowRankBenchError, NonConforming


def require(holds: bool, promise: str) -> None:
    """Raise NonConforming, with the promise that is broken, unless it holds."""
    if not holds:
        raise NonConforming(promise)


def require_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise NonConforming unless two tensors agree, within ``tolerance`` of the largest value expected."""
    require(found.shape == expected.shape, f"{what} has shape {tuple(expected.shape)}, not {tuple(found.shape)}")
    found, expected = found.detach(), expected.detach()
    error = float((found - expected).abs().max() / expected.abs().max())
    require(error <= tolerance, f"{what} is exact at full rank: off by {error:.1e}, at most {tolerance:g} is allowed")


def require_raises(kind: type[LowRankBenchError], words: str, what: str, call: Callable[[], object]) -> None:
    """Raise NonConforming unless the call raises that kind of error, and its message has these words."""
    said = "nothing"
    try:
        call()
    except kind as error:
        said = str(error)
    require(words in said, f"{kind.__name__} that says {words!r} is raised for {what}, not {said}")
