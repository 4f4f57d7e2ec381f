"""Memory that a training process keeps from step to step."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from lowrank_bench.allocator import keep_freed_memory
torch.set_num_threads(1)
if {kept}:
    keep_freed_memory()
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(10_000_000)  # 40 MB, beyond glibc's largest threshold
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(kept: bool) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators are left as they are")
def test_freed_memory_is_used_again_and_not_faulted_in():
    assert _faults(kept=True) < _faults(kept=False) / 10
