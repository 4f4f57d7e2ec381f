"""How a child begins: ``python -m lowrank_bench.running.start``; it hears of its parent's death from its first moment.

The parent writes a job (one JSON line) to standard input and keeps it open: when it closes, because the parent died
however it died, the child is gone at once, also while it still imports what it needs, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from queue import SimpleQueue


def main() -> None:
    """Take a job from standard input, and do it."""
    jobs: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    from lowrank_bench.running.worker import work  # it imports torch

    work(jobs.get())


def _listen(jobs: SimpleQueue[str]) -> None:
    """Hand the job on. Then standard input ends when the parent does, and what this process started goes with it."""
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale
    jobs.put(sys.stdin.readline())
    sys.stdin.read()
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
