"""Batches made ready in a thread of their own, while the network computes on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2


def prefetched(batches: Iterable[T]) -> Iterator[T]:
    """The same batches in the same order, made up to AHEAD before they are asked for; what fails there fails here."""
    source, end = iter(batches), object()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ready = deque(thread.submit(next, source, end) for _ in range(AHEAD))
        while (batch := ready.popleft().result()) is not end:
            ready.append(thread.submit(next, source, end))
            yield batch  # type: ignore[misc]  # anything but the end is a T
