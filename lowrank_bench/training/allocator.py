"""How a process that trains keeps its memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for good: for processes that train and time nothing.

    glibc maps every block above 32 MiB anew, such as the 64 x 32 x 32 activations of 128 images, and each of its pages
    faults and is filled with zeros: a quarter of the processor time of AllConv's training. Other allocators are left
    as they are.
    """
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
