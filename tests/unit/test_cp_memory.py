"""The memory that cp_nls needs, as the system counts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL_MIB, FACTORS_MIB = 512 * 512 * 9 * 8 / 2**20, 400 * (512 + 512 + 3 + 3) * 8 / 2**20

# tracemalloc sees no tensor: a child's high-water mark of resident memory does, reset behind a first small call that
# loads what a call loads. Large blocks go back to the system at once, so that the mark is what is in use.
CHILD = """
import re, torch
from pathlib import Path
from lowrank_bench.decomposition import cp_nls

def mib(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024

kernel = torch.randn(512, 512, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
cp_nls(kernel[:32, :32].clone(), 20, max_iter=2)
before = mib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
cp_nls(kernel, 400, init="svd", max_iter=1)
print(mib("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the high-water mark from Linux's /proc")
def test_512_channels_at_rank_400_need_at_most_four_times_the_kernel_and_the_factors() -> None:
    limits = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    assert float(child.stdout) <= 4 * KERNEL_MIB + FACTORS_MIB
