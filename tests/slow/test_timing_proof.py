"""A/A and doubled-run checks on this machine: real networks against their copies, and against themselves run twice.

With LOWRANK_BENCH_TIMING_PROOF set, the table is written to the file that it names:
LOWRANK_BENCH_TIMING_PROOF=results/published/timing_proof.md pytest tests/slow/test_timing_proof.py
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lowrank_bench.measurement.environment import Environment, fingerprint
from lowrank_bench.measurement.runtimes import RUNTIMES, inference_state, prepare
from lowrank_bench.measurement.speedup import random_input
from lowrank_bench.measurement.statistics import noise_floor, verdict
from lowrank_bench.measurement.timing import time_pairs
from lowrank_bench.reporting.markdown import markdown_table
from lowrank_bench.tasks.catalog import get_task

pytestmark = pytest.mark.timeout(1200)

NETWORKS = {
    "charnet": ("chars36", "charnet", 64),
    "ResNet-18": ("speed", "torchvision:resnet18", 1),
    "MobileNetV2": ("speed", "torchvision:mobilenet_v2", 1),
    "VGG-16, convolutions": ("speed", "torchvision:vgg16/features", 1),
}
RUNTIMES_HERE = ["eager-nhwc", "onnxruntime", "openvino"]
SECONDS = 12.0
OFF = 0.03
"""Of the ratio of a network to two runs of its copy, the second of which finds its weights in a warmer cache."""

HEAD = """# A/A and doubled-run checks of the timing

Made by `LOWRANK_BENCH_TIMING_PROOF=results/published/timing_proof.md pytest tests/slow/test_timing_proof.py`.

Each network against its own copy (A/A: the truth is 1), and against two runs of that copy (the truth is 0.5). Two runs,
not one graph that holds the network twice, which a runtime may lay out as it likes. One thread, in one process, median
of pair ratios with its 95 % interval. It is as it should be where at 1 the verdict is "same", and at 0.5 the ratio is
within 3 % of it. "Truth inside" asks more: whether the interval itself holds the truth. A single process cannot know
what lasts as long as it does, such as where its memory lies; published rows have five processes, and the noise floor.
Every case that was timed is here. This checks the clock on one machine; it proves no interval: how often they hold the
truth is counted on a simulated machine (timing_coverage.md) and over the published A/A rows (findings.md).
"""
COLUMNS = [
    "Network",
    "Runtime",
    "Against",
    "Ratio [95 %]",
    "Verdict",
    "Noise floor",
    "Pairs",
    "As it should be",
    "Truth inside",
]
COPY = "its copy"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[list[str]]]:
    kept: list[list[str]] = []
    begun = fingerprint()
    yield kept
    page = proof_page(kept, begun, datetime.now(UTC), fingerprint().load)
    print(f"\n{page}")
    if path := os.environ.get("LOWRANK_BENCH_TIMING_PROOF"):
        Path(path).write_text(page, encoding="utf-8")


def proof_page(rows: list[list[str]], begun: Environment, ended: datetime, load: float | None) -> str:
    """The table under what it is, when and where it was made, and in how many cases the interval holds the truth."""
    versions = ", ".join(f"{name} {begun.packages[name]}" for name in ("torch", *RUNTIMES_HERE[1:]))
    where = f"{begun.machine}, {begun.cpu}, {begun.cores} cores, load {begun.load} at the start and {load} at the end"
    inside = sum(row[-1] == "yes" for row in rows)
    told = f"{ended:%Y-%m-%d}: {where}; {versions}. Truth inside the interval in {inside} of {len(rows)} cases."
    return f"{HEAD}\n{told}\n\n{markdown_table(COLUMNS, rows)}\n"


def holds(rows: list[list[str]], name: str, runtime: str, against: str) -> bool:
    """Time one row of the table and write it, whether it holds or not."""
    if missing := RUNTIMES[runtime].missing():
        pytest.skip(missing)
    task_name, model, batch = NETWORKS[name]
    task = get_task(task_name)
    network = task.load(model)
    images = random_input(network, (batch, *task.input_size))
    one, other = (prepare(runtime, each, images, 1).run for each in (network, copy.deepcopy(network)))
    copied = against == COPY
    with inference_state(1):
        control = time_pairs(one, other, precision=0.005, max_seconds=SECONDS / 4)
        pairs = time_pairs(one, other if copied else lambda: (other(), other()), precision=0.005, max_seconds=SECONDS)
    found, floor = pairs.interval, noise_floor(control.interval)
    said = verdict(found, floor)
    good = said == "same" if copied else said == "slower" and abs(found.ratio - 0.5) <= OFF * 0.5
    interval = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]"
    numbers = [interval, said, f"{floor:.1%}", str(len(pairs))]
    inside = found.low <= (1.0 if copied else 0.5) <= found.high
    rows.append([name, runtime, against, *numbers, *("yes" if each else "no" for each in (good, inside))])
    return good


@pytest.mark.parametrize("runtime", RUNTIMES_HERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_as_fast_as_its_copy(rows: list[list[str]], name: str, runtime: str) -> None:
    assert holds(rows, name, runtime, COPY), rows[-1]


@pytest.mark.parametrize("runtime", RUNTIMES_HERE)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_run_twice_takes_twice_the_time(rows: list[list[str]], name: str, runtime: str) -> None:
    assert holds(rows, name, runtime, "itself twice"), rows[-1]
