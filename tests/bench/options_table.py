"""What a method's options cost in accuracy before any tuning: a table on standard output, a row per method and budget.

For instance the rules that share a budget, or the metrics; the first options are what the others are held against:

    python tests/bench/options_table.py '{"allocation": "uniform"}' '{"allocation": "sensitivity"}' --budgets 3 4 5
    python tests/bench/options_table.py '{"metric": "frobenius"}' '{"metric": "covariance"}' --budgets 3 4 5

Top-1 is that of the task's validation images, batch norms are estimated anew on training images, as in a trial, and the
test images are not read. Intervals are of 95 %, from one paired bootstrap over groups of images.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.measurement.quality import paired_drop, paired_drop_ratio
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.task import Task
from lowrank_bench.training.evaluate import predicted_and_true

Hits = NDArray[np.bool_]


def table(
    task: Task, model: str, methods: list[str], budgets: list[lrb.Budget], sides: list[str], window: Any
) -> Iterator[str]:
    """Markdown, line by line; budgets at which the first side's loss is outside of the window (points) are left out."""
    dense = task.load(model)
    reference = hits(task, dense)
    yield f"{task.name} {model}, {100 * reference.mean():.2f} % of {len(reference)} validation images. Points lost:\n"
    yield f"| method | budget | {' | '.join(sides)} | last over first |"
    yield f"|---|---|{'---|' * len(sides)}---|"
    for method in methods:
        for budget in budgets:
            if cells := list(row(task, dense, reference, method, budget, sides, window)):
                yield f"| {method} | {budget} | {' | '.join(cells)} |"


def row(
    task: Task, dense: nn.Module, reference: Hits, method: str, budget: lrb.Budget, sides: list[str], window: Any
) -> Iterator[str]:
    """The sides' losses with their intervals, then the last side's loss as a share of the first's; nothing outside of
    the window.
    """
    groups = task.group_sizes("validation")
    found = []
    for side in sides:
        found.append(compressed_hits(task, dense, method, budget, json.loads(side)))
        drop = paired_drop(reference, found[-1], groups)
        if len(found) == 1 and not window[0] <= drop.drop <= window[1]:
            return
        yield f"{drop.drop:.1f} [{drop.low:.1f}, {drop.high:.1f}]"
    share = paired_drop_ratio(reference, found[-1], found[0], groups)
    yield "" if share is None else f"{share.ratio:.2f} [{share.low:.2f}, {share.high:.2f}]"


def compressed_hits(task: Task, dense: nn.Module, method: str, budget: lrb.Budget, options: dict[str, Any]) -> Hits:
    """Which validation images a compressed network gets right, not tuned."""
    compressed = lrb.compress(
        dense, method, budget, None, options, task.input_size, lambda epoch: task.batches("train", epoch=epoch)
    )
    return hits(task, compressed.model)


def hits(task: Task, model: nn.Module) -> Hits:
    """Which validation images a network gets right."""
    predicted, labels = predicted_and_true(model, task.batches("validation"))
    right: Hits = (predicted == labels).numpy()
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="+", help="options, as JSON")
    parser.add_argument("--task", default="chars36")
    parser.add_argument("--model", default="charnet")
    parser.add_argument("--methods", nargs="+", default=["channel_svd", "jaderberg", "tucker"])
    parser.add_argument("--budgets", nargs="+", type=float, required=True, help="ratios of MACs")
    parser.add_argument("--window", nargs=2, type=float, default=(5.0, 20.0), help="points that the first side loses")
    given = parser.parse_args()
    ratios = [lrb.Budget(macs=ratio) for ratio in given.budgets]
    task = get_task(given.task, given.model)
    for line in table(task, given.model, given.methods, ratios, given.sides, given.window):
        print(line, flush=True)
