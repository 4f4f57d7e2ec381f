"""What a training came to, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean loss, validation top-1 in percent (None without validation), seconds."""

    loss: float
    top1: float | None
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a training, in order; the first ``kept`` were done before it was cut short."""

    epochs: tuple[Epoch, ...] = ()
    kept: int = 0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all epochs, validation included."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def kept_seconds(self) -> float:
        """Those of the epochs that were done before."""
        return sum(epoch.seconds for epoch in self.epochs[: self.kept])
