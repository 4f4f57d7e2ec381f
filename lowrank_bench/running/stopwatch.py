"""Seconds per stage of a job, and telling which stage it is in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, float], None]
"""(stage, share done from 0 to 1)."""


class Stopwatch:
    """Seconds per stage, told to ``report`` as the stages begin."""

    def __init__(self, report: Report) -> None:
        self.report, self.seconds = report, dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within, whatever comes of it."""
        self.report(name, 0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that a stage took."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
