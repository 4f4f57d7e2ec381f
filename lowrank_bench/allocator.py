"""What glibc's allocator keeps of the memory that a process frees. Other allocators are left as they are."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for good: for processes that train and time nothing.

    By default blocks of 32 MiB and more, such as the 64 x 32 x 32 activations of 128 images, are mapped anew each time,
    and each of their pages faults and is filled with zeros.
    """
    with suppress(AttributeError, OSError, TypeError):  # there is no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def return_freed_memory() -> None:
    """Give what is kept back to the system."""
    with suppress(AttributeError, OSError, TypeError):  # there is no glibc
        ctypes.CDLL(None).malloc_trim(0)
